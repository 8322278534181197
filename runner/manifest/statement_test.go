package manifest

import (
	"errors"
	"strings"
	"testing"
)

// TestDecodeTakesOneSpelling: what was signed has one reading.
func TestDecodeTakesOneSpelling(t *testing.T) {
	good, err := Build(fullInput(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(good); err != nil {
		t.Fatalf("the control is refused: %v", err)
	}
	text, key := string(good), `"run":"`+testRun+`"`
	for name, bad := range map[string]string{
		"an unknown key":     strings.Replace(text, key, key+`,"run_":1`, 1),
		"a repeated key":     strings.Replace(text, key, key+","+key, 1),
		"another case":       strings.Replace(text, `"run":`, `"Run":`, 1),
		"white space":        strings.Replace(text, `"run":`, `"run": `, 1),
		"an escape":          strings.Replace(text, `"run":`, `"r\u0075n":`, 1),
		"a missing key":      strings.Replace(text, key+",", "", 1),
		"something after it": text + "{}",
		"another type":       strings.Replace(text, "Statement/v1", "Statement/v2", 1),
		"another predicate":  strings.Replace(text, "run/v1", "run/v2", 1),
		"an unknown outcome": strings.Replace(text, `"result":"oom"`, `"result":"fine"`, 1),
		"null for a list":    strings.Replace(text, `"problems":["none"]`, `"problems":null`, 1),
		"nothing":            "",
		"too much":           text + strings.Repeat(" ", MaxSize),
	} {
		if bad == text {
			t.Errorf("%s: the case changes nothing", name)
		}
		_, err := Decode([]byte(bad))
		if _, ok := errors.AsType[*FormatError](err); !ok {
			t.Errorf("%s: %v, want a FormatError", name, err)
		}
	}
}
