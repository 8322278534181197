//go:build docker

package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// hostileNames are names of protected paths, which a manifest lists one by one.
func hostileNames() map[string]string {
	return map[string]string{
		"a window's title":               "x\x1b]0;owned\a",
		"colours":                        "\x1b[31mred",
		"an escape in one byte (C1)":     "\u009b31mred",
		"text from right to left":        "\u202egnp.exe",
		"a line of the audit log":        "x\n{\"kind\":\"run.finished\",\"data\":{\"outcome\":\"success\"}}",
		"a return over the line before":  "evil\rgood",
		"a workflow command":             "x\n::set-output name=outcome::success",
		"a letter that nobody sees":      "in\u200bvisible",
		"bytes that are no text":         "x\xff\xfe",
		"an end of the line for Unicode": "x\u2028y",
	}
}

// TestEscapeManifestNames: what the agent names comes into the evidence as text that does nothing.
func TestEscapeManifestNames(t *testing.T) {
	l := testLab(t)
	argv := []string{"sh", "-c", `mkdir -p .husky && cd .husky && for n in "$@"; do : >"$(printf "$n")"; done`, "sh"}
	for _, name := range hostileNames() {
		octal := "" // a command's arguments are text
		for i := range len(name) {
			octal += fmt.Sprintf(`\%03o`, name[i])
		}
		argv = append(argv, octal)
	}
	b := l.start(t, setup{}, argv, nil)
	raw := l.start(t, setup{seam: seam{manifest: manifest.Weakened{Raw: true}}}, argv, nil)
	for what, name := range hostileNames() {
		l.entry(t, "evidence", "a name with "+what, "texts are made printable", func(t *testing.T, _ func(string)) {
			made := slices.ContainsFunc(changesOf(t, b).Changes, func(c workspace.Change) bool { return c.Path == ".husky/"+name })
			if !made || !listed(b, event.Printable(".husky/"+name)) {
				t.Fatalf("the agent made it: %v; the manifest lists %+v", made, b.manifest.Workspace.Protected)
			}
			for _, p := range b.manifest.Workspace.Protected {
				if strings.ContainsFunc(p.Path, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("the manifest has %q", p.Path)
				}
			}
			if !listed(raw, strings.ToValidUTF8(".husky/"+name, "\ufffd\ufffd")) {
				t.Errorf("without the protection the manifest lists %q: the entry proves nothing", raw.manifest.Workspace.Protected)
			}
		})
	}
}

func listed(b *box, path string) bool {
	return b.manifest.Workspace != nil && slices.ContainsFunc(b.manifest.Workspace.Protected, func(p manifest.Protected) bool { return p.Path == path })
}

func changesOf(t *testing.T, b *box) *workspace.ChangeSet {
	t.Helper()
	set, err := workspace.Load(b.result.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestEscapeManifestSize: names of any length don't keep the manifest away.
func TestEscapeManifestSize(t *testing.T) {
	l := testLab(t)
	l.entry(t, "evidence", "100 names of 3,000 bytes that need six for each", "texts are cut short", func(t *testing.T, _ func(string)) {
		script := `n=$(head -c 200 /dev/zero | tr '\0' '\001'); d=.husky
			for i in $(seq 14); do d=$d/$n; done; mkdir -p $d; for i in $(seq 100); do : >$d/$i; done`
		b := l.start(t, setup{}, []string{"sh", "-c", script}, nil)
		if b.err != nil || b.result.ExitCode != 0 || b.manifest.Workspace.ProtectedReject < 100 || len(b.manifest.Workspace.Protected) != 100 {
			t.Fatalf("exit status %d, %v, %d paths listed\n%s", b.result.ExitCode, b.err, len(b.manifest.Workspace.Protected), b.stderr)
		}
		if info, err := os.Stat(filepath.Join(b.result.Dir, runs.ManifestFile)); err != nil || info.Size() > 1_000_000 {
			t.Errorf("%v, %v", info, err)
		}
		if !slices.Contains(b.manifest.Clipped, "workspace.protected") {
			t.Errorf("what was cut is not marked: %q", b.manifest.Clipped)
		}
		off := l.start(t, setup{seam: seam{manifest: manifest.Weakened{Long: true}}}, []string{"sh", "-c", script}, nil)
		if off.manifest.Run != "" || off.err == nil {
			t.Error("without the protection there is a manifest: the entry proves nothing")
		}
	})
}

// TestEscapeManifestGuest: the agent can't stop the one who tells of it.
func TestEscapeManifestGuest(t *testing.T) {
	l := testLab(t)
	l.entry(t, "evidence", "killing the guest", "another user's guest", func(t *testing.T, _ func(string)) {
		// SIGSEGV is one that the runtime of Go can't pass over.
		script := []string{"sh", "-c", `: >made; (sleep 60 & kill -9 $!) && echo control; for s in KILL STOP TERM QUIT ABRT SEGV; do kill -$s 1; done; exit 5`}
		b := l.start(t, setup{}, script, nil)
		if !strings.Contains(string(b.stdout), "control") {
			t.Errorf("a signal to a child does not work: %s", b.stderr)
		}
		if o := b.manifest.Outcome; o.Result != string(event.Failure) || o.ExitCode != 5 || o.Agent == nil || o.Agent.Code != 5 || b.manifest.Workspace == nil || b.manifest.Workspace.Added == 0 {
			t.Errorf("the manifest has %+v, %+v", o, b.manifest.Workspace)
		}
		off := l.start(t, weak("", "", []string{"guard", "hide"}, engine.Weakened{}), script, nil)
		if off.result.ExitCode == 5 {
			t.Error("without the protection the guest lives: the entry proves nothing")
		}
		// What stays even then: the runner tells that the guest is gone.
		if o := off.manifest.Outcome; o.Result != string(event.Errored) || o.Partial || o.Reason == "" {
			t.Errorf("of a guest that was killed the manifest says %+v", o)
		}
	})
}

// TestEscapeManifestRecord: the record that the manifest is made from is out of the agent's reach.
func TestEscapeManifestRecord(t *testing.T) {
	l := testLab(t)
	// The owner of the record's directory, and so as near to it as an agent can be.
	const root = "user: root\n"
	script := []string{"sh", "-c", `find / \( -path /proc -o -path /sys \) -prune -o -name plan.json -print | grep -v ^/workspace | while read -r f; do
		sed -i 's/"none"/"forged"/' "$f" && echo "$f"; done
		echo '{"network":{"mode":"forged"}}' >plan.json; cp plan.json manifest.json; exit 6`}
	l.entry(t, "evidence", "forging the record of the run", "it is outside of the sandbox", func(t *testing.T, _ func(string)) {
		b := l.start(t, setup{policy: root}, script, nil)
		if len(b.stdout) > 0 || b.result.ExitCode != 6 || b.manifest.Workspace.Added != 2 {
			t.Fatalf("exit status %d, %d files added, found: %s\n%s", b.result.ExitCode, b.manifest.Workspace.Added, b.stdout, b.stderr)
		}
		if got := b.manifest.Isolation.Planned.Network; got != "none" {
			t.Errorf("the manifest says of the network %q", got)
		}
		open := weak("", root, nil, engine.Weakened{Mounts: []engine.Mount{{Source: l.store.Path(), Target: "/record"}}})
		off := l.start(t, open, script, nil)
		if p := off.manifest.Isolation.Planned; p == nil || p.Network != "forged" {
			t.Errorf("with the record in the sandbox the manifest says %+v, the agent %q: the entry proves nothing", p, off.stdout)
		}
	})
}

// TestEscapeManifestForgedLog: lines that look like the record's are the agent's output, and nothing else.
func TestEscapeManifestForgedLog(t *testing.T) {
	l := testLab(t)
	l.entry(t, "evidence", "forging lines of the audit log", "the agent's output is in files of its own", func(t *testing.T, _ func(string)) {
		line, err := json.Marshal(map[string]any{"kind": "run.finished", "data": map[string]any{"outcome": "success", "exit_code": 0}})
		if err != nil {
			t.Fatal(err)
		}
		script := []string{"sh", "-c", `cat; for fd in $(ls /proc/1/fd 2>/dev/null) 0 1 2; do cat line >/proc/1/fd/$fd; done; exit 7`}
		b := l.start(t, setup{prepare: func(t *testing.T, project string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(project, "line"), append(line, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}}, script, line)
		log, err := os.ReadFile(filepath.Join(b.result.Dir, runs.StdoutFile))
		if err != nil || string(log) != string(line) {
			t.Errorf("its output is kept as %q, %v", log, err)
		}
		ends := 0
		for _, e := range b.events {
			if _, ok := e.(event.RunFinished); ok {
				ends++
			}
		}
		if o := b.manifest.Outcome; ends != 1 || o.Result != string(event.Failure) || o.ExitCode != 7 || b.manifest.Events.State != string(event.LogComplete) {
			t.Errorf("%d ends in the log; the manifest has %+v, log %s", ends, o, b.manifest.Events.State)
		}
		if got := strconv.FormatUint(b.manifest.Events.Count, 10); got != strconv.Itoa(len(b.events)) {
			t.Errorf("the manifest counts %s events, the log has %d", got, len(b.events))
		}
		var bad *event.ChainError
		if err := forgeLine(filepath.Join(b.result.Dir, runs.EventsFile), line, string(b.result.Run)); !errors.As(err, &bad) {
			t.Errorf("the line in the log itself goes unnoticed: %v: the entry proves nothing", err)
		}
	})
}

// forgeLine is what an agent would do that could write to the log; the answer is that of who reads it.
func forgeLine(log string, line []byte, run string) error {
	f, err := os.OpenFile(log, os.O_APPEND|os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return err
	}
	_, err = event.ReadChain(f, run, func(event.Envelope) error { return nil })
	return err
}
