package manifest

import (
	"errors"
	"strings"
	"testing"
)

// TestDecodeTakesOneSpelling: what was signed has one reading.
func TestDecodeTakesOneSpelling(t *testing.T) {
	good, err := Statement{Type: StatementType, PredicateType: PredicateType, Subject: []Subject{}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(good); err != nil {
		t.Fatalf("the control is refused: %v", err)
	}
	text := string(good)
	for name, bad := range map[string]string{
		"an unknown key":       strings.Replace(text, `"subject":[]`, `"subjekt":[],"subject":[]`, 1),
		"a repeated key":       strings.Replace(text, `"subject":[]`, `"subject":[],"subject":[]`, 1),
		"another case":         strings.Replace(text, `"subject":[]`, `"Subject":[]`, 1),
		"white space":          strings.Replace(text, `"subject":[]`, `"subject": []`, 1),
		"an escape":            strings.Replace(text, `"subject"`, `"subj\u0065ct"`, 1),
		"a missing key":        strings.Replace(text, `,"subject":[]`, ``, 1),
		"something after it":   text + "{}",
		"another type":         strings.Replace(text, "Statement/v1", "Statement/v2", 1),
		"another predicate":    strings.Replace(text, "run/v1", "run/v2", 1),
		"nothing":              "",
		"too much":             text + strings.Repeat(" ", MaxSize),
		"null instead of list": strings.Replace(text, `"subject":[]`, `"subject":null,"x":1`, 1),
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
