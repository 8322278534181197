package manifest

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
)

func fullFile(t *testing.T) File {
	t.Helper()
	payload, err := Build(fullInput(t))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Unsigned{}.Sign(context.Background(), payload)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Read(signed.File)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestMarkdownGolden(t *testing.T) {
	var b strings.Builder
	if err := Markdown(&b, fullFile(t)); err != nil {
		t.Fatal(err)
	}
	checkGolden(t, filepath.Join("testdata", "full.md"), []byte(b.String()))
	if !strings.Contains(b.String(), "NONE") {
		t.Error("an unsigned manifest does not say so")
	}
}

// TestMarkdownTakesNoMarkup: what comes from a run is text.
func TestMarkdownTakesNoMarkup(t *testing.T) {
	f := fullFile(t)
	f.Statement.Predicate.Outcome.Reason = "[x](http://evil.example) ![i](x) <img src=x onerror=y> @acme/all | cell |\n# head `code` https://evil.example www.evil.example \x1b[31m"
	var b strings.Builder
	if err := Markdown(&b, f); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"](", "<img", "@acme", "| cell", "\n# head", "`code`", "https://evil", "www.evil", "\x1b"} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("%q came through", bad)
		}
	}
}

// TestVerdictNamesWhatToLookAt: a good verdict needs a success with nothing to look at.
func TestVerdictNamesWhatToLookAt(t *testing.T) {
	good := Predicate{Outcome: Outcome{Result: "success"}, Events: Events{State: "complete"}, Isolation: Isolation{Verified: true}}
	if line, ok := Verdict(good); !ok {
		t.Errorf("the control is not good: %s", line)
	}
	for name, change := range map[string]func(*Predicate){
		"failure": func(p *Predicate) { p.Outcome.Result = "failure" },
		"partial": func(p *Predicate) { p.Outcome.Partial = true },
		"lowered": func(p *Predicate) { p.Isolation.LoweredCount = 1 },
		"refused": func(p *Predicate) { p.Egress.RefusedNames = 1 },
		"leak":    func(p *Predicate) { p.Egress.Leaks = []Leak{{}} },
		"paths":   func(p *Predicate) { p.Workspace = &Workspace{ProtectedReject: 1} },
		"log":     func(p *Predicate) { p.Events.State = "torn" },
		"token":   func(p *Predicate) { p.Credentials = []Credential{{Name: "github", Revocation: "failed"}} },
	} {
		p := good
		change(&p)
		if line, ok := Verdict(p); ok {
			t.Errorf("%s: %s", name, line)
		}
	}
}

// TestReadRefuses what is no manifest.
func TestReadRefuses(t *testing.T) {
	for _, bad := range []string{"", "{}", "[]", `{"payloadType":"application/vnd.in-toto+json","payload":"!","signatures":[]}`, `{"payloadType":"text","payload":"e30="}`, strings.Repeat(" ", MaxFile+1)} {
		if f, err := Read([]byte(bad)); err == nil {
			t.Errorf("Read(%.40q) = %+v", bad, f)
		}
	}
}
