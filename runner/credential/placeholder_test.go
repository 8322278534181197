package credential

import (
	"strings"
	"testing"
)

func TestNewPlaceholder(t *testing.T) {
	for text, want := range map[string]struct{ prefix, alphabet string }{
		"sk-ant-api03-AbCd_efgh-IJKL0123456789xyzAA": {"sk-ant-api03-", digits + lower + upper},
		"sk-ant-AbCd_efgh-IJKL0123456789xyzAA":       {"sk-ant-", digits + lower + upper},
		"sk-proj-AbCdefghIJKL0123456789":             {"sk-proj-", digits + lower + upper},
		"sk-0123456789abcdef0123456789abcdef":        {"sk-", digits + "abcdef"},
		"ghs_12345_ABCDEFGHIJKL":                     {"ghs_", digits + upper},
		"ghp_abcdefghijklmnopqrst":                   {"ghp_", lower},
		"correct-horse-battery-staple":               {"", lower}, // no prefix of anybody's: a word of the secret
		"0123456789012345":                           {"", digits},
		"0123456789ABCDEF":                           {"", digits + "ABCDEF"},
		"----------------":                           {"", digits + lower + upper},
	} {
		got, err := newPlaceholder(text)
		if err != nil {
			t.Errorf("newPlaceholder(%q): %v", text, err)
			continue
		}
		rest, ok := strings.CutPrefix(got, want.prefix)
		if !ok || len(got) != len(text) || strings.Trim(rest, want.alphabet) != "" {
			t.Errorf("newPlaceholder(%q) = %q, want it to start with %q and go on with %q", text, got, want.prefix, want.alphabet)
		}
		if again, _ := newPlaceholder(text); again == got {
			t.Errorf("newPlaceholder(%q) is %q twice", text, got)
		}
	}
}

// TestPlaceholderStructure: a token's parts keep their lengths.
func TestPlaceholderStructure(t *testing.T) {
	const text = "ghs_123.eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl=="
	got, err := newPlaceholder(text)
	if err != nil {
		t.Fatal(err)
	}
	shape := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r == '.' {
				return r
			}
			return 'x'
		}, s)
	}
	if shape(got) != shape(text) || strings.Contains(got, "=") {
		t.Errorf("the placeholder is %q", got)
	}
}

func TestNewPlaceholderRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "too short",
		"0123456789abcde":                  "too short",
		"sk-ant-api03-0123456789abcde":     "too short",
		"0123456789abcde.......":           "too short",
		"0123456789abcdef\n":               "no header takes",
		"0123456789 abcdef":                "no header takes",
		"0123456789\x00abcdef":             "no header takes",
		"0123456789abcdef\u00e9":           "no header takes",
		strings.Repeat("a", maxSecret+1):   "fit into a header",
		strings.Repeat("a", 10*maxSecret):  "fit into a header",
		"github_pat_" + "0123456789abcde":  "too short",
		strings.Repeat(".", 2*minRandom):   "too short",
		"\t0123456789abcdef0123456789abcd": "no header takes",
	} {
		got, err := newPlaceholder(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("newPlaceholder(%.40q) = %.40q, %v; want an error with %q", text, got, err, want)
		}
	}
}

// FuzzPlaceholder: whatever the secret, its placeholder passes for it and tells nothing of it but its beginning.
func FuzzPlaceholder(f *testing.F) {
	for _, p := range prefixes() {
		f.Add(p.text + "0123456789abcdefGHIJ")
		f.Add(p.text)
	}
	f.Add("0123456789.abcdef.ghijkl==")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := newPlaceholder(text)
		if err != nil {
			if got != "" {
				t.Fatalf("an error and %q", got)
			}
			return
		}
		start := prefixOf(text).text
		rest := text[len(start):]
		if len(got) != len(text) || !strings.HasPrefix(got, start) {
			t.Fatalf("%q stands for %q", got, text)
		}
		if strings.Contains(got, rest) || strings.Contains(text, got[len(start):]) {
			t.Fatalf("%q tells %q", got, text)
		}
		if checkSecret(got) != nil && prefixOf(got).text == start {
			t.Fatalf("%q, for %q, would not pass as a secret itself", got, text)
		}
		hex := strings.Trim(strings.ToLower(rest), digits+"abcdef.") == ""
		if !hex && kinds(got[len(start):])&^kinds(rest) != 0 && strings.ContainsAny(rest, digits+lower+upper) {
			t.Fatalf("%q has other characters than %q", got, text)
		}
	})
}

// kinds is a set of what text is made of.
func kinds(text string) (set int) {
	for i, kind := range []string{digits, lower, upper, "."} {
		if strings.ContainsAny(text, kind) {
			set |= 1 << i
		}
	}
	return set
}
