package actions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	githubactions "github.com/sethvargo/go-githubactions"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

func TestParseInputs(t *testing.T) {
	for _, tt := range []struct {
		in   map[string]string
		want []string // nil: it is fine
	}{
		{map[string]string{"task": "mend it", "apply": ""}, nil},
		{map[string]string{"command": "make", "fail-on": "error, refusal", "timeout": "20m"}, nil},
		{map[string]string{}, []string{"task, prompt-file, command"}},
		{map[string]string{"task": "a", "comand": "b"}, []string{"comand: there is no such input"}},
		{map[string]string{"task": "a", "command": "b", "agent": "claude"}, []string{"command and agent", "command and a task"}},
		{map[string]string{"task": "a", "apply": "push", "branch": "x"}, nil},
		{map[string]string{"task": "a", "apply": "merge"}, []string{`"merge" is none of`}},
		{map[string]string{"task": "a", "apply": "commit", "workspace-mode": "readonly"}, []string{"readonly and apply"}},
		{map[string]string{"task": "a", "workspace-mode": "none"}, []string{`"none" is none of`}},
		{map[string]string{"task": "a", "branch": "x"}, []string{"branch: it is for apply: commit"}},
		{map[string]string{"task": "a", "policy": "../x"}, []string{"not a path below the workspace"}},
		{map[string]string{"task": "a", "dry-run": "yes"}, []string{"neither true nor false"}},
		{map[string]string{"task": "a", "upload": "always", "retention-days": "30", "sign": "keyless", "broker-url": "https://broker.example.org/"}, nil},
		{map[string]string{"task": "a", "upload": "yes", "retention-days": "0", "sign": "me", "broker-url": "http://b.example"}, []string{"upload: ", "retention-days: ", "sign: ", "broker-url: "}},
		{map[string]string{"task": "a", "upload": "never", "retention-days": "3"}, []string{"retention-days and upload"}},
		{map[string]string{"task": "a", "upload": "always", "dry-run": "true"}, []string{"dry-run and upload"}},
		{map[string]string{"task": "a", "fail-on": "never,error", "timeout": "-1s"}, []string{"never goes with nothing", "not a time"}},
	} {
		_, err := ParseInputs(tt.in)
		var wrong *InputError
		if errors.As(err, &wrong) != (tt.want != nil) {
			t.Errorf("ParseInputs(%v) = %v", tt.in, err)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("ParseInputs(%v) = %v, want %q in it", tt.in, err, want)
			}
		}
	}
}

// runnerOf reads a log as the runner does: the commands that it would carry out.
func runnerOf(log string) (commands []string) {
	stopped := ""
	for line := range strings.Lines(log) {
		line = strings.TrimSpace(line)
		name, ok := strings.CutPrefix(line, "::")
		switch {
		case stopped != "" && line == "::"+stopped+"::":
			stopped = ""
		case stopped != "":
		case strings.HasPrefix(name, "stop-commands::") && ok:
			stopped = strings.TrimPrefix(name, "stop-commands::")
		case ok, strings.Contains(line, "##["):
			commands = append(commands, line)
		}
	}
	return commands
}

func TestAgentCanNotCommandTheRunner(t *testing.T) {
	var b bytes.Buffer
	l := NewLog(&b)
	l.Group("first")
	attacks := []string{"::set-output name=a::b\n", "x ##[error]y\n", "::stop-commands::mine\n::mine::\n", "no end of line", "\r::error::e\r\n", "::endgroup::\n"}
	for _, a := range attacks {
		fmt.Fprint(l.Agent(), a)
		l.Printf("%s", "::error::from a name") // ours, in between
		l.Printf("%s", "name ##[error]x")
	}
	l.EndGroup()
	if diff := cmp.Diff([]string{"::group::first", "::endgroup::"}, runnerOf(b.String())); diff != "" {
		t.Errorf("the runner would carry out (-want +got):\n%s\n%s", diff, b.String())
	}
	// The positive control: without the quoting they are commands.
	if got := runnerOf(strings.Join(attacks, "")); len(got) == 0 {
		t.Error("none of the attacks is a command at all")
	}
}

func TestAgentOutputIsShowable(t *testing.T) {
	const text = "a\x1b[31mred\x1b[0m\x1b[2J\x1b]0;title\x07b\rc\u009bd\r\n\x1b[1;"
	const want = "a\x1b[31mred\x1b[0m\\x1b[2J\\x1b]0;title\\x07b\\x0dc\\u009bd\n\\x1b[1;\n"
	// However it comes: an agent chooses what it writes at one time.
	for size := 1; size <= len(text); size++ {
		var b bytes.Buffer
		l := NewLog(&b)
		for piece := range slices.Chunk([]byte(text), size) {
			if n, err := l.Agent().Write(piece); n != len(piece) || err != nil {
				t.Fatalf("%d of %d written, %v", n, len(piece), err)
			}
		}
		token := l.token
		l.Resume()
		_, got, _ := strings.Cut(b.String(), "\n")
		if got = strings.TrimSuffix(got, "::"+token+"::\n"); got != want {
			t.Errorf("in pieces of %d shown as %q, want %q", size, got, want)
		}
	}
}

func TestAnnotationIsOneCommand(t *testing.T) {
	var b bytes.Buffer
	l := NewLog(&b)
	l.Annotate(Annotation{Level: Warning, Title: "a,file=x::\n::error::y", Text: "text\n::error::z", File: "n\n::error::q", Line: 3})
	l.Mask(secret.New("first-secret\nsecond-secret"))
	got := runnerOf(b.String())
	if len(got) != 4 || !strings.HasPrefix(got[0], "::warning ") || got[1] != "::add-mask::first-secret%0Asecond-secret" || got[3] != "::add-mask::second-secret" {
		t.Errorf("commands %q", got)
	}
}

// readOutputs is what the runner does with GITHUB_OUTPUT.
func readOutputs(t *testing.T, file string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		name, delimiter, ok := strings.Cut(lines[i], "<<")
		if !ok {
			name, value, _ := strings.Cut(lines[i], "=")
			got[name] = value
			continue
		}
		var value []string
		for i++; i < len(lines) && lines[i] != delimiter; i++ {
			value = append(value, lines[i])
		}
		got[name] = strings.Join(value, "\n")
	}
	return got
}

func TestOutputsCanNotBeForged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "output")
	forged := "x\n_GitHubActionsFileCommandDelimeter_\noutcome=success\nghadelimiter_1\nadmin<<EOF\nyes\nEOF"
	for range 2 { // the delimiters of the first are of no use for the second
		err := WriteOutputs(file, []Output{{"branch", forged}, {"outcome", "failure"}})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := os.ReadFile(file)
		forged += "\n" + string(b)
	}
	got := readOutputs(t, file)
	if len(got) != 2 || got["outcome"] != "failure" {
		t.Errorf("a later step reads %q", got)
	}
	if err := WriteOutputs(file, []Output{{"a\nb", "c"}}); err == nil {
		t.Error("a name with an end of line was written")
	}
	// Without the protection: what the usual library writes, whose delimiter everybody knows.
	open := filepath.Join(t.TempDir(), "output")
	a := githubactions.New(githubactions.WithGetenv(func(name string) string { return map[string]string{"GITHUB_OUTPUT": open}[name] }))
	a.SetOutput("branch", forged)
	if got := readOutputs(t, open); got["admin"] != "yes" {
		t.Errorf("with a constant delimiter a later step reads %q: the entry proves nothing", got)
	}
}

func TestSummaryCarriesNoMarkup(t *testing.T) {
	evil := "`<img src=x>` | [a](javascript:b) \n# head <script>@team"
	r := Report{Summary: event.Summary{
		Run: evil, Outcome: event.Outcome(evil), Reason: evil,
		Refused:   []event.Refusal{{Proto: "tcp", Name: evil, Reason: evil}},
		Protected: []event.ProtectedTouched{{Path: evil, Tier: evil, Reason: evil}},
		Hosts:     []event.Host{{Host: evil}},
	}, Applied: evil, Files: evil, Artifact: Artifact{ID: 1, Name: evil}, Verify: []string{evil}, Local: []string{"```\n" + evil, "````"}}
	r.Summary.Start = &event.RunStarted{Kit: evil}
	r.Summary.Manifest = &event.Manifest{SHA256: evil, Signed: evil, Detail: evil}
	r.Summary.Credentials = []event.CredentialState{{CredentialIssued: event.CredentialIssued{Name: evil, Source: evil, Hosts: []string{evil}}, Revoked: event.Revocation(evil)}}
	// Outside of code nothing of it may be left: blocks end with the fence that they begin with.
	outside := regexp.MustCompile("(?s)\n```\n.*?\n```\n|\n`````\n.*?\n`````\n").ReplaceAllString(r.Markdown(), "\n")
	outside = regexp.MustCompile("`[^`\n]*`").ReplaceAllString(outside, "")
	for _, bad := range []string{"<img", "<script", "](", "@team", "\n# head", "`"} {
		if strings.Contains(outside, bad) {
			t.Errorf("%q is outside of code:\n%s", bad, outside)
		}
		if !strings.Contains(evil, bad) {
			t.Errorf("%q is not in the text as it came either: the entry proves nothing", bad)
		}
	}
}

// Whose files a job works on, by what its event says.
func TestForeign(t *testing.T) {
	for _, tt := range []struct {
		event, payload string
		foreign        bool
	}{
		{"push", `{}`, false},
		{"workflow_dispatch", `{"inputs": {}}`, false},
		{"pull_request", `{"pull_request": {"base": {"repo": {"id": 1}}, "head": {"repo": {"id": 1}}}}`, false},
		{"pull_request", `{"pull_request": {"base": {"repo": {"id": 1}}, "head": {"repo": {"id": 2}}}}`, true},
		{"pull_request", `{"pull_request": {"base": {"repo": {"id": 1}}, "head": {"repo": null}}}`, true},
		{"pull_request_target", `{"pull_request": {"base": {"repo": {"id": 1}}, "head": {"repo": {"id": 1}}}}`, true},
		{"pull_request_target", `{}`, true},
		{"pull_request_review", `{"pull_request": {"base": {"repo": {"id": 1}}, "head": {"repo": {"id": 2}}}}`, true},
		{"workflow_run", `{"repository": {"id": 1}, "workflow_run": {"event": "push", "head_repository": {"id": 1}}}`, false},
		{"workflow_run", `{"repository": {"id": 1}, "workflow_run": {"event": "pull_request", "head_repository": {"id": 1}}}`, false},
		{"workflow_run", `{"repository": {"id": 1}, "workflow_run": {"event": "pull_request", "head_repository": {"id": 2}}}`, true},
		{"workflow_run", `{"repository": {"id": 1}, "workflow_run": {"event": "pull_request"}}`, true},
	} {
		file := filepath.Join(t.TempDir(), "event.json")
		if err := os.WriteFile(file, []byte(tt.payload), 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := FromEnv(environment(map[string]string{"GITHUB_EVENT_NAME": tt.event, "GITHUB_EVENT_PATH": file}))
		if err != nil {
			t.Fatal(err)
		}
		if who := j.Foreign(); (who != "") != tt.foreign {
			t.Errorf("%s %s: a stranger's: %q, want %v", tt.event, tt.payload, who, tt.foreign)
		}
	}
}

func TestReadCommitted(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) string {
		cmd := exec.CommandContext(context.Background(), "git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.org"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	if err := os.MkdirAll(filepath.Join(dir, "ci"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ci", "p.yaml"), []byte("version: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	git("add", "-A")
	git("commit", "-q", "-m", "base")
	base := git("rev-parse", "HEAD")
	if got, err := ReadCommitted(t.Context(), dir, base, "ci/p.yaml"); err != nil || string(got) != "version: 1\n" {
		t.Errorf("ReadCommitted = %q, %v", got, err)
	}
	if _, err := ReadCommitted(t.Context(), dir, base, "ci/q.yaml"); !errors.Is(err, ErrNotInCommit) {
		t.Errorf("a file that is not there gives %v", err)
	}
	// A replaced object is what git itself would show.
	blob := git("rev-parse", base+":ci/p.yaml")
	if err := os.WriteFile(filepath.Join(dir, "evil"), []byte("version: 1\nuser: root\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	evil := git("hash-object", "-w", "evil")
	object := func(id string) string { return filepath.Join(dir, ".git", "objects", id[:2], id[2:]) }
	b, err := os.ReadFile(object(evil))
	if err == nil {
		err = errors.Join(os.Remove(object(blob)), os.WriteFile(object(blob), b, 0o444))
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ReadCommitted(t.Context(), dir, base, "ci/p.yaml"); err == nil {
		t.Errorf("a forged object was taken: %q", got)
	}
}
