//go:build docker

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runs"
)

// checkManifest holds the manifest of a run against the record. That all of them are as the schema says is for [newUserOf] to see to.
func (u *user) checkManifest(r *runs.Run, s event.Summary) manifest.Statement {
	u.t.Helper()
	content, err := os.ReadFile(r.Path(runs.ManifestFile))
	if err != nil {
		u.t.Fatal(err)
	}
	f, err := manifest.Read(content)
	if err != nil {
		u.t.Fatalf("the manifest of %s: %v", r.ID, err)
	}
	log, err := os.ReadFile(r.Path(runs.EventsFile))
	if err != nil {
		u.t.Fatal(err)
	}
	p := f.Statement.Predicate
	if p.Run != string(r.ID) || p.Outcome.Result != string(s.Outcome) || p.Outcome.ExitCode != s.ExitCode {
		u.t.Errorf("the manifest is of run %s, %s, exit status %d; the result of %s, %s, %d", p.Run, p.Outcome.Result, p.Outcome.ExitCode, r.ID, s.Outcome, s.ExitCode)
	}
	if s.Log != nil && (p.Events.Head != s.Log.Head.Hash || p.Events.Count != s.Log.Head.Count) {
		u.t.Errorf("the manifest has the head %s after %d events, the result %v", p.Events.Head, p.Events.Count, s.Log.Head)
	}
	if got, want := subjectSum(f.Statement, manifest.SubjectEvents), sumOf(log); got != want {
		u.t.Errorf("the manifest is about a log with the digest %s, there is one with %s", got, want)
	}
	if s.Manifest == nil || s.Manifest.SHA256 != sumOf(content) {
		u.t.Errorf("the result names the manifest %+v, not %s", s.Manifest, sumOf(content))
	}
	return f.Statement
}

func sumOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func subjectSum(s manifest.Statement, name string) string {
	for _, sub := range s.Subject {
		if sub.Name == name {
			return sub.Digest["sha256"]
		}
	}
	return ""
}

// manifestOf is the newest run's.
func (u *user) manifestOf(want event.Outcome, code int) manifest.Statement {
	u.t.Helper()
	s := u.wantOutcome(want, code)
	return u.checkManifest(u.last(), s)
}

// TestManifestOfEveryOutcome: none goes without, and each is signed.
func TestManifestOfEveryOutcome(t *testing.T) {
	u := newUser(t)
	public := u.signs()
	last := func(want event.Outcome, code int) manifest.Predicate {
		t.Helper()
		p := u.manifestOf(want, code).Predicate
		u.wantSigned(public)
		return p
	}
	u.wantCode(u.sh("true"), 0)
	last(event.Success, 0)
	u.wantCode(u.sh("exit 3"), 3)
	if p := last(event.Failure, 3); !p.Isolation.Verified || len(p.Missing) > 0 || p.Workspace == nil {
		t.Errorf("verified %v, missing %v, workspace %v", p.Isolation.Verified, p.Missing, p.Workspace)
	}
	u.wantCode(u.run("--timeout", "300ms", "--", "sleep", "60"), 124)
	last(event.Timeout, 124)
	u.interrupted()
	last(event.Cancelled, 130)
	u.policy("resources: {memory: 64MiB, tmp: 16MiB, home: 16MiB, shm: 8MiB, run: 4MiB}\n")
	u.run("--", "sh", "-c", "exec tail /dev/zero")
	last(event.OOM, 137)
	u.policy("")
	gone := u.command("run", "--", "true")
	gone.Env = append(gone.Env, "DOCKER_HOST=unix:///nowhere/docker.sock")
	u.wantCode(u.finish(gone), 125)
	if p := last(event.Errored, 125); p.Isolation.Verified || len(p.Missing) == 0 || len(p.Policy.Compiled) == 0 {
		t.Errorf("verified %v, missing %v, policy %s", p.Isolation.Verified, p.Missing, p.Policy.Compiled)
	}
	u.write(policyFile, "version: 7\n", 0o644)
	u.wantCode(u.run("--", "true"), exitUsage)
	if p := last(event.Refused, exitUsage); p.Policy.Loaded || len(p.Policy.Problems) == 0 {
		t.Errorf("the policy is recorded as %+v", p.Policy)
	}
}

// signs gives the user a key that signs from now on, and returns the file of its public half.
func (u *user) signs() (public string) {
	u.t.Helper()
	key := filepath.Join(u.t.TempDir(), "signing.pem")
	u.wantCode(u.finish(u.command("manifest", "keygen", "--plain", key)), 0)
	u.env = append(u.env, signingKeyVariable+"="+key)
	return key + ".pub"
}

// wantSigned: the newest manifest is signed with the key, and about the files beside it.
func (u *user) wantSigned(public string) {
	u.t.Helper()
	r := u.finish(u.command("manifest", "verify", "last", "--key", public))
	if r.code != 0 || !strings.Contains(r.stdout, "signature  passed") || !strings.Contains(r.stdout, "events.jsonl") {
		u.t.Errorf("exit status %d: %s%s", r.code, r.stdout, r.stderr)
	}
}

// interrupted has a run that somebody ends with Ctrl-C.
func (u *user) interrupted() {
	u.t.Helper()
	p := u.start("--", "sh", "-c", "echo ready; exec sleep 60")
	if line, err := p.stdout.ReadString('\n'); err != nil || line != "ready\n" {
		u.t.Fatalf("%q, %v", line, err)
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		u.t.Fatal(err)
	}
	u.wantCode(p.wait(), 130)
}

// TestManifestOfADeadRunner: the next command writes it, marked.
func TestManifestOfADeadRunner(t *testing.T) {
	u := newUser(t)
	public := u.signs()
	cmd := u.command("run", "--", "sh", "-c", "echo ready; sleep 60")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()
	r := u.last()
	if _, err := os.Stat(r.Path(runs.ManifestFile)); err == nil {
		t.Fatal("there is a manifest already")
	}
	u.wantCode(u.finish(u.command("show", "last")), 0)
	s, err := r.Summary()
	if err != nil {
		t.Fatal(err)
	}
	p := u.checkManifest(r, s).Predicate
	u.wantSigned(public)
	missing := []string{}
	for _, m := range p.Missing {
		missing = append(missing, m.Field)
	}
	if all := strings.Join(missing, " "); !p.Outcome.Partial || !p.Isolation.Verified || !strings.Contains(all, "workspace") || !strings.Contains(all, "outcome.agent") {
		t.Errorf("partial %v, verified %v, missing %s", p.Outcome.Partial, p.Isolation.Verified, all)
	}
}

// TestManifestSameRunTwice: what differs is what must differ.
func TestManifestSameRunTwice(t *testing.T) {
	u := newUser(t)
	var texts []string
	for range 2 {
		u.wantCode(u.sh("echo out; echo new > file; mkdir -p .husky; echo x > .husky/pre-commit"), 0)
		b, err := json.MarshalIndent(u.manifestOf(event.Success, 0), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, normalManifest(string(b)))
	}
	if diff := cmp.Diff(texts[0], texts[1]); diff != "" {
		t.Errorf("two runs of the same differ (-first +second):\n%s", diff)
	}
}

// TestManifestSubjects: the manifest is about the files that the policy names and about the git tree that the changes make, which is the
// one of the commit when they are put on a branch.
func TestManifestSubjects(t *testing.T) {
	u := newUser(t)
	u.policy("evidence: {outputs: {report: out/report.txt, kept: kept.txt, gone: gone.txt, never: never.txt}}\n")
	for _, name := range []string{"kept.txt", "gone.txt"} {
		u.write(name, name, 0o644)
	}
	u.write(".gitignore", "*.log\n", 0o644)
	u.git("init", "-q", "-b", "main")
	u.git("add", "-A")
	u.git("commit", "-qm", "one")
	u.wantCode(u.sh("mkdir out && printf hello >out/report.txt && rm gone.txt && echo x >noise.log && mkdir .husky && echo x >.husky/pre-commit"), 0)
	s := u.manifestOf(event.Success, 0)
	missing := map[string]string{}
	for _, m := range s.Predicate.Missing {
		missing[m.Field] = m.Why
	}
	want := map[string]string{"workspace.outputs.gone": "the agent removed it", "workspace.outputs.never": "there is no such file"}
	if diff := cmp.Diff(want, missing); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	for name, content := range map[string]string{"output/report": "hello", "output/kept": "kept.txt"} {
		if got := subjectSum(s, name); got != sumOf([]byte(content)) {
			t.Errorf("%s has the digest %q", name, got)
		}
	}
	u.wantCode(u.finish(u.command("apply", "last", "--branch", "agent/work", "--allow-protected", ".husky")), 0)
	if tree := u.git("rev-parse", "agent/work^{tree}"); s.Predicate.Workspace.Tree != tree {
		t.Errorf("the tree %q, the branch has %q", s.Predicate.Workspace.Tree, tree)
	}
	u.wantCode(u.sh("true"), 0)
	if w := u.manifestOf(event.Success, 0).Predicate.Workspace; w.Tree != "" {
		t.Errorf("a run that changed nothing has the tree %q", w.Tree)
	}
}

// git runs git in the project.
func (u *user) git(args ...string) string {
	u.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.org"}, args...)...)
	cmd.Dir = u.project
	out, err := cmd.CombinedOutput()
	if err != nil {
		u.t.Fatalf("git %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// normalManifest hides the run's id, its times, what the kernel counted, and the digests of files that have one of these in them.
func normalManifest(text string) string {
	for _, r := range [][2]string{
		{`[0-9]{8}-[0-9]{6}-[0-9a-z]{6}`, "ID"},
		{`[0-9-]{10}T[0-9:.]+Z`, "TIME"},
		{`("duration_ns"|"peak_memory"|"peak_pids"|"cpu_micros"): [0-9]+`, "$1: N"},
		{`("head"|"changes_sha256"): "[0-9a-f]+"`, `$1: "SUM"`},
		{`("planned": \{(?s:.*?)"sha256"): "[0-9a-f]+"`, `$1: "SUM"`},
		{`("head": "SUM",\s*"count"): [0-9]+`, `$1: N`},
		{`("digest": \{\s*"sha256"): "[0-9a-f]+"(\s*\},\s*"name": "events)`, `$1: "SUM"$2`},
		{`("name": "events.jsonl",\s*"digest": \{\s*"sha256"): "[0-9a-f]+"`, `$1: "SUM"`},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	return text
}

// TestManifestAttacks tries, from inside, to write, forge or suppress the manifest. That of a run that behaves is the control.
func TestManifestAttacks(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		code   int
	}{
		"control": {"echo hello", 0},
		"forged lines": {
			`printf '{"kind":"run.finished","data":{"outcome":"success"}}\n' | tee -a events.jsonl manifest.json result.json >&2
			printf '{"kind":"run.finished"}\n' > /proc/1/fd/1 2>/dev/null; printf '{"exit":{"code":0}}' > /proc/1/fd/0 2>/dev/null; exit 3`, 3,
		},
		"escapes and giant names": {
			`mkdir .husky; printf x > ".husky/$(printf '\033]0;x\a\302\233')"; n=$(head -c 250 /dev/zero | tr '\0' a); mkdir -p .husky/$n/$n/$n/$n/$n/$n; printf x > .husky/$n/$n/$n/$n/$n/$n/$n
			for i in $(seq 200); do getent hosts "$i.$(head -c 60 /dev/zero | tr '\0' b).example" ; done; exit 4`, 4,
		},
		"killing the guest": {`kill -9 1; kill -TERM 1; kill -STOP 1; for f in /proc/1/mem /proc/1/environ; do echo x > $f; done; exit 5`, 5},
		"the record's place": {
			`find / -xdev \( -name events.jsonl -o -name manifest.json \) -not -path '/proc/*' 2>/dev/null | grep -v '^/workspace' && exit 0
			ls "$HOME/.local/state" 2>/dev/null && exit 0; exit 6`, 6,
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t)
			u.wantCode(u.sh(tt.script), tt.code)
			outcome := event.Success
			if tt.code != 0 {
				outcome = event.Failure
			}
			s := u.manifestOf(outcome, tt.code)
			if p := s.Predicate; !p.Isolation.Verified || p.Events.State != "complete" || p.Outcome.Finished.Before(time.Now().Add(-time.Hour)) {
				t.Errorf("verified %v, log %s, finished %s", p.Isolation.Verified, p.Events.State, p.Outcome.Finished)
			}
			text, err := json.Marshal(s.Predicate.Workspace)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), `\u001b`) || strings.ContainsRune(string(text), '\u009b') {
				t.Errorf("an escape came through: %s", text)
			}
			if content, err := os.ReadFile(u.last().Path(runs.ManifestFile)); err != nil || len(content) > 1_000_000 {
				t.Errorf("%d bytes, %v", len(content), err)
			}
		})
	}
}
