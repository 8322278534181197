package runner

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/secret"
	"github.com/org/agent-sandbox/runner/workspace"
)

const maskedSecret = "shop_0123456789abcdefghijklmnop"

// TestOutputIsRedacted: what the caller and the logs get has no secret, with a terminal and without, in whatever pieces it comes.
func TestOutputIsRedacted(t *testing.T) {
	for _, tty := range []bool{false, true} {
		var out bytes.Buffer
		r, _ := newRun(t, Config{Stdout: &out, TTY: tty})
		r.secrets.add("shop", secret.New(maskedSecret))
		box, guest := newBox(t, r)
		stdout := guest.open(link.Stdout, "a "+maskedSecret[:12])
		for _, piece := range []string{maskedSecret[12:], "\n", base64.StdEncoding.EncodeToString([]byte("x" + maskedSecret)), "\nprompt> s"} {
			if _, err := stdout.Write([]byte(piece)); err != nil {
				t.Fatal(err)
			}
		}
		_ = stdout.Close()
		if !tty {
			_ = guest.open(link.Stderr, "").Close()
		}
		if err := box.link.drain(t.Context(), false); err != nil {
			t.Error(err)
		}
		got, log := out.String(), logOf(t, r, runs.StdoutFile)
		if !strings.HasPrefix(got, "a [redacted:shop]\n") || !strings.HasSuffix(got, "\nprompt> s") || strings.Count(got, "[redacted:shop]") != 2 || log != got {
			t.Errorf("terminal %v: out came %q, into the log %q", tty, got, log)
		}
		var told []event.Event
		r.secrets.report(func(e event.Event) { told = append(told, e) })
		if diff := cmp.Diff([]event.Event{event.Redacted{Where: "stdout", Credential: "shop", Count: 2}}, told); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

// TestRenewedIsRedacted: a token is looked for from before anybody has it.
func TestRenewedIsRedacted(t *testing.T) {
	r, _ := newRun(t, Config{})
	now := 0
	r.grants = []credential.Grant{{Name: "shop", Value: func(context.Context) (secret.Value, error) {
		now++
		return secret.New(fmt.Sprintf("%s-%d", maskedSecret, now)), nil
	}}}
	if err := r.hold(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		text := fmt.Sprintf("%s-%d", maskedSecret, i+1)
		if got := r.secrets.text(text); got != "[redacted:shop]" {
			t.Errorf("token %d: %q", i+1, got)
		}
		if _, err := r.grants[0].Value(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecordIsRedacted: the command line of the caller may have a secret before anything was obtained.
func TestRecordIsRedacted(t *testing.T) {
	p := loadPolicy(t, "credentials:\n  shop: {from: \"env:SHOP_TOKEN\", host: shop.example}\n")
	cfg := Config{Policy: p, LookupEnv: func(string) (string, bool) { return maskedSecret, true }}
	cfg.Proxy.HTTPS = "http://user:proxy-password@proxy.example:3128"
	var s secrets
	s.known(cfg)
	plan := &Plan{Argv: []string{"curl", "-H", "X: " + maskedSecret}, Env: []Variable{{Name: "A", Value: "proxy-password"}}}
	text, err := json.Marshal(redactedJSON{&s, plan})
	if err != nil || strings.Contains(string(text), maskedSecret) || strings.Contains(string(text), "proxy-password") || !strings.Contains(string(text), "X: [redacted:shop]") {
		t.Errorf("%s, %v", text, err)
	}
	if plan.Argv[2] != "X: "+maskedSecret {
		t.Error("what is run has changed")
	}
	cause := errors.New("run " + maskedSecret)
	if got := s.err(fmt.Errorf("it: %w", cause)); got.Error() != "it: run [redacted:shop]" || !errors.Is(got, cause) {
		t.Errorf("err = %v", got)
	}
	if got := s.err(cause); s.err(nil) != nil || got == cause {
		t.Errorf("err = %v", got)
	}
}

// TestChangesAreSearched: a file with a secret is told of, and left as it is.
func TestChangesAreSearched(t *testing.T) {
	r, log := newRun(t, Config{})
	r.secrets.add("shop", secret.New(maskedSecret))
	blobs := workspace.OpenBlobs(r.dir.Dir())
	sum, size, err := blobs.Put(strings.NewReader("token: " + maskedSecret + "\nagain: " + maskedSecret))
	if err != nil {
		t.Fatal(err)
	}
	clean, _, err := blobs.Put(strings.NewReader("nothing"))
	if err != nil {
		t.Fatal(err)
	}
	cs := &workspace.ChangeSet{Changes: []workspace.Change{
		{Path: "clean", New: &workspace.Node{Type: workspace.File, SHA256: clean}},
		{Path: "config/\x1b.yml", New: &workspace.Node{Type: workspace.File, SHA256: sum, Size: size}},
		{Path: "deleted", Old: &workspace.Node{Type: workspace.File, SHA256: sum}},
		{Path: "link", New: &workspace.Node{Type: workspace.Symlink, Target: maskedSecret}},
	}}
	if err := r.searchChanges(cs, blobs); err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range log.of(event.Warning{}.Kind()) {
		files = append(files, e.(event.Warning).Message)
	}
	want := []string{`the credential shop is in config/\x1b.yml; the patch has it as it is`, "the credential shop is in link; the patch has it as it is"}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	content, err := os.ReadFile(filepath.Join(r.dir.Dir(), workspace.BlobsDir, sum))
	if err != nil || !strings.Contains(string(content), maskedSecret) {
		t.Errorf("%q, %v", content, err)
	}
	if len(r.secrets.counts) != 1 || r.secrets.counts[0] != (event.Redacted{Where: "changes", Credential: "shop", Count: 3}) {
		t.Errorf("counts %+v", r.secrets.counts)
	}
}

// TestShortSecretIsToldOf: what can't be looked for is not passed over in silence.
func TestShortSecretIsToldOf(t *testing.T) {
	var s secrets
	s.add("pin", secret.New("1234"))
	s.add("pin", secret.New("1234"))
	var told []event.Event
	s.report(func(e event.Event) { told = append(told, e) })
	if len(told) != 1 || !strings.Contains(told[0].(event.Warning).Message, "the credential pin is shorter") {
		t.Errorf("%+v", told)
	}
}
