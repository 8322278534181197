package runner

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/credential/rotate"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// What is not known to be young is refused where the policy insists on it; elsewhere it is told of when it is overdue.
func TestAges(t *testing.T) {
	const key = "sk-test-0123456789abcdefghij"
	young := time.Now().Add(-24 * time.Hour).UTC().Format(time.DateOnly)
	for name, tt := range map[string]struct {
		keys    string // of the policy
		state   event.AgeState
		refused string
		warning string
	}{
		"fresh":             {", rotate: 30d, rotate-enforce: true, rotated: " + young, event.AgeFresh, "", ""},
		"overdue":           {", rotate: 30d, rotated: 2020-01-01", event.AgeOverdue, "", "the credential model is overdue: it is "},
		"overdue, enforced": {", rotate: 30d, rotate-enforce: true, rotated: 2020-01-01", event.AgeOverdue, "the credential model is overdue: it is ", ""},
		"unknown":           {", rotate: 30d", event.AgeUnknown, "", ""},
		"unknown, enforced": {", rotate: 30d, rotate-enforce: true", event.AgeUnknown, "nobody knows whether the credential model is younger than 30d", ""},
		"no limit":          {"", "", "", ""},
	} {
		book, err := rotate.OpenBook(filepath.Join(t.TempDir(), "credentials"))
		if err != nil {
			t.Fatal(err)
		}
		r, log := newRun(t, Config{
			Policy:      loadPolicy(t, "credentials:\n  model: {from: 'env:K', host: api.example.com"+tt.keys+"}\n"),
			LookupEnv:   func(name string) (string, bool) { return key, name == "K" },
			Credentials: CredentialSources{Book: book},
		})
		err = r.credentials(t.Context())
		if got := text(err); !strings.Contains(got, tt.refused) || (err != nil) != (tt.refused != "") {
			t.Errorf("%s: error %v, want %q", name, err, tt.refused)
		}
		warning, age := "", (*event.CredentialAge)(nil)
		for _, e := range log.list {
			switch e := e.(type) {
			case event.Warning:
				warning += e.Message
			case event.CredentialIssued:
				age = e.Age
			}
		}
		if !strings.Contains(warning, tt.warning) || (warning != "") != (tt.warning != "") {
			t.Errorf("%s: warning %q, want %q", name, warning, tt.warning)
		}
		if err == nil && tt.state != "" && (age == nil || age.State != tt.state) {
			t.Errorf("%s: the record has %+v, want %s", name, age, tt.state)
		}
		r.usedKept(t.Context(), "model")
		if e, err := book.Entry(secret.New(key)); err != nil || e.LastUsed.IsZero() {
			t.Errorf("%s: the book has %+v, %v", name, e, err)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
