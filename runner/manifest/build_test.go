package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/org/agent-sandbox/runner/event"
)

const testRun = "20261123-152240-3k7f9c"

func testTime() time.Time { return time.Date(2026, 11, 23, 15, 22, 40, 0, time.UTC) }

const testPlan = `{"agent":{"user":"agent","uid":1000,"gid":1000},"env":[{"name":"PATH","value":"/bin","source":"image"},{"name":"HOME","source":"sandbox"}],
"workspace":{"mode":"overlay"},"network":{"mode":"none","capture":true,"found":[{"bundle":"npm","host":"npm.example","port":443,"source":"project: .npmrc:3"}]},
"seccomp":{"profile":"strict","digest":"sha256:aa"},"kit":{"version":"1.2.3"},
"caches":[{"kind":"npm","volume":"agent-sandbox-cache-npm-1","target":"/var/cache/agent-sandbox/npm","new":true},{"kind":"go","volume":"agent-sandbox-cache-go-1","target":"/var/cache/agent-sandbox/go"}],
"container":{"guest":{"digest":"bb"},"mounts":[{"target":"/workspace","volume":true}],"tmpfs":[{"target":"/tmp"}],"limits":{"memory":4294967296,"cpus":1.5,"pids":528}},
"policy":{"compiled":{"version":1,"evidence":{"include":["prompt","stdout"]}}}}`

// fold is the summary of events a second apart.
func fold(events ...event.Event) event.Summary {
	f := event.NewFold(testRun)
	for i, e := range events {
		_ = f.Handle(event.Envelope{Seq: uint64(i + 1), Time: testTime().Add(time.Duration(i) * time.Second), Kind: e.Kind(), Run: testRun, Data: e})
	}
	s := f.Summary()
	s.Log = &event.Log{Head: event.Head{Hash: "cc", Count: uint64(len(events))}, State: event.LogComplete}
	return s
}

// fullInput is a run in which everything happened.
func fullInput(t testing.TB) Input {
	t.Helper()
	process := event.Process{CapInh: "0", CapPrm: "0", CapEff: "0", CapBnd: "0", CapAmb: "0", NoNewPrivs: true, Seccomp: 2, Groups: []int{1000}}
	end := testTime().Add(time.Hour)
	scope := &event.CredentialScope{
		Repositories: []event.CredentialRepository{{ID: 7, Name: "acme/shop"}}, Permissions: map[string]string{"contents": "write"}, Push: []string{"refs/heads/agent/*"},
	}
	s := fold(
		event.RunStarted{
			Runner: "v1", Argv: []string{"claude", "-p", "mend it"}, Project: "/home/dev/shop", Kit: "claude", TTY: true, Timeout: time.Hour,
			Policy: event.PolicyRef{Path: "p.yaml", Digest: "sha256:dd", CeilingDigest: "sha256:ee", Origin: "base-branch", Commit: "c0", Problems: []string{"none"}},
			Invocation: event.Invocation{
				Trigger: event.TriggerActions, Actor: "dev", ActorID: "1", Repository: "acme/shop", RepositoryID: "7", RepositoryOwnerID: "8", Workflow: "w",
				WorkflowSHA: "c1", Job: "j", Event: "push", Ref: "refs/heads/main", SHA: "c2", RunURL: "https://github.com/acme/shop/actions/runs/1",
			},
			Task: &event.Task{SHA256: "t0", PromptSHA256: "t1", Args: []int{2}},
		},
		event.RunPlanned{
			Image:  event.Image{Reference: "agent:1", ID: "sha256:aa", Digest: "sha256:bb", Locked: true},
			Engine: event.Engine{Version: "28.5", API: "1.51", Kernel: "6.12", Runtime: "runc", Platform: "linux/amd64", Cgroup: 2}, Mode: "overlay",
		},
		event.RunnerIdentified{SHA256: "r0"},
		event.SourceState{
			Repositories: []event.SourceRepository{{ID: "7", Name: "acme/shop", URL: "https://github.com/acme/shop"}}, Commit: "c2", Ref: "refs/heads/main",
			Dirty: new(true), DirtySHA256: "d0", DirtyFiles: 2,
		},
		event.Lowered{What: "network", Why: "no nfnetlink_log"},
		event.GuestMeasured{
			Agent: process, Guest: process, Namespaces: map[string]string{"net": "net:[1]", "user": "user:[4026531837]"}, Interfaces: []string{"lo"},
			Network: event.Capture{TCP: true, IPv6: true, Reasons: []string{"no nfnetlink_log"}}, Isolation: event.Isolation{StrictCalls: true, Reach: []string{"signal"}, Control: []string{"reach", "exposed"}},
			Trust: &event.Trust{Certificates: 3}, Kernel: "6.12",
		},
		event.PhaseStarted{Name: event.Agent},
		event.CredentialIssued{
			Name: "github", Source: "github-oidc", Deliver: "inject", Hosts: []string{"api.github.com"}, Requested: scope, Granted: scope, Issued: testTime(), Expires: &end,
			TokenSHA256: "AA==", Broker: "https://broker.example", Identity: "agent", IssuanceID: "i-1", Broad: "no",
			Age: &event.CredentialAge{State: event.AgeOverdue, Limit: time.Hour, Since: &end, AtLeast: true, Basis: "first-seen", Provenance: "observed"},
		},
		event.CredentialUsed{Name: "github", Requests: 3, Permissions: map[string]string{"contents": "write"}},
		event.CredentialRevoked{Name: "github", Status: event.RevocationVerified, Detail: "after 1 s"},
		event.Connection{ID: 1, Name: "shop.example", Port: 443, Outcome: event.ConnectionAllowed, Rule: "shop.example", Up: 10, Down: 20, Requests: 1, Count: 1},
		event.ConnectionRefused{Proto: "tcp", Address: "192.0.2.7", Port: 443, Reason: "not allowed", Count: 12},
		event.NameRefused{Name: "evil.example", Type: "A", Count: 3},
		event.Request{Host: "shop.example", Port: 443, Method: "POST", Path: "/v1/\x1b[31m", Outcome: event.ConnectionWasRefused, Reason: "no", Leak: "github", Count: 1},
		event.OutputKept{Stream: "stdout", SHA256: "o0", Bytes: 6, Lost: 2},
		event.AgentExited{Code: 137, Signal: "SIGKILL", Reason: event.OOMKilled, Error: "none", OOMKills: 1, PeakMemory: -1, CPUMicros: 5e6, PeakPIDs: 21},
		event.ProtectedTouched{Path: ".husky/pre-commit\x1b[31m", Tier: "reject", Reason: "runs at commit"},
		event.ChangesExtracted{Added: 3, Reject: 1, Digest: "ff", Patch: "00", Tree: "4b825d"},
		event.FileNamed{Name: "report", Path: "out/report.json", SHA256: "f0", Bytes: 12},
		event.FileNamed{Name: "binary", Path: "bin/tool", Detail: "there is no such file"},
		event.Warning{Message: "the disk is nearly full"},
		event.EventsDropped{Dropped: "warning", Count: 9},
		event.RunFinished{Outcome: event.OOM, ExitCode: 137, Reason: "memory limit", Duration: time.Minute},
	)
	s.Log.Detail, s.Log.State = "none", event.LogDamaged
	return Input{
		Summary: s, Prompt: "mend it",
		Files: fstest.MapFS{
			"plan.json": {Data: []byte(testPlan)}, "events.jsonl": {Data: []byte("{}\n")}, "stdout.log": {Data: []byte("hello\x1b")}, "stderr.log": {Data: []byte("e")},
		},
	}
}

func decoded(t *testing.T, in Input) Predicate {
	t.Helper()
	payload, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Decode(payload)
	if err != nil {
		t.Fatalf("%v\n%s", err, payload)
	}
	return s.Predicate
}

// TestBuildGolden is the whole of it, and that the same record gives the same bytes.
func TestBuildGolden(t *testing.T) {
	first, err := Build(fullInput(t))
	if err != nil {
		t.Fatal(err)
	}
	second, err := Build(fullInput(t))
	if err != nil || string(first) != string(second) {
		t.Errorf("two statements of one record differ: %v", err)
	}
	var tree any
	if err := json.Unmarshal(first, &tree); err != nil {
		t.Fatal(err)
	}
	indented, err := json.MarshalIndent(tree, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	checkGolden(t, filepath.Join("testdata", "full.json"), append(indented, '\n'))
	if strings.Contains(strings.Replace(string(first), `"text":"mend it"`, "", 1), "mend it") {
		t.Error("the task is in the statement without having been asked for")
	}
}

// TestBuildMarksWhatIsMissing: a record that ends early gives a statement that says so, field by field.
func TestBuildMarksWhatIsMissing(t *testing.T) {
	none := fstest.MapFS{}
	started := event.RunStarted{Argv: []string{"make"}, Project: "/p"}
	agent := event.PhaseStarted{Name: event.Agent}
	for name, tt := range map[string]struct {
		events []event.Event
		files  fstest.MapFS
		want   []string
	}{
		"nothing": {nil, none, []string{"environment.engine", "environment.image", "environment.runner.sha256", "invocation", "isolation.measured", "isolation.planned", "source"}},
		"refused": {
			[]event.Event{started, event.RunnerIdentified{SHA256: "r"}, event.SourceState{}, event.RunFinished{Outcome: event.Refused}},
			none,
			[]string{"environment.engine", "environment.image", "isolation.measured", "isolation.planned", "policy.compiled"},
		},
		"the runner died while the agent ran": {
			[]event.Event{started, event.RunPlanned{}, event.RunnerIdentified{SHA256: "r"}, event.SourceState{Commit: "c", Detail: "late"}, event.GuestMeasured{}, agent},
			fstest.MapFS{"plan.json": {Data: []byte(testPlan)}, "stdout.log": {Data: []byte("x")}},
			[]string{
				"included.prompt", "logs.stderr", "logs.stdout", "outcome.agent", "resources.cpu_micros", "resources.oom_kills", "resources.peak_memory",
				"resources.peak_pids", "source.dirty", "workspace",
			},
		},
		"the sandbox was killed with the agent": {
			[]event.Event{
				started,
				event.RunPlanned{},
				event.RunnerIdentified{SHA256: "r"},
				event.SourceState{},
				event.GuestMeasured{},
				agent,
				event.AgentExited{Code: 125, Reason: event.Killed, Silent: true, OOMKills: -1, PeakMemory: -1, CPUMicros: -1, PeakPIDs: -1},
				event.OutputKept{Stream: "stdout"},
				event.OutputKept{Stream: "stderr"},
			},
			fstest.MapFS{"plan.json": {Data: []byte(testPlan)}},
			[]string{
				"included.prompt", "included.stdout", "outcome.agent.code", "resources.cpu_micros", "resources.oom_kills", "resources.peak_memory", "resources.peak_pids", "workspace",
			},
		},
	} {
		s := fold(tt.events...)
		s.Outcome = event.Interrupted
		p := decoded(t, Input{Summary: s, Files: tt.files})
		got := []string{}
		for _, m := range p.Missing {
			if m.Why == "" {
				t.Errorf("%s: %s is missing without a reason", name, m.Field)
			}
			if strings.Contains(name, "killed") && strings.Contains(m.Why, "the engine") {
				t.Errorf("%s: %s is missing for the reason of another: %s", name, m.Field, m.Why)
			}
			got = append(got, m.Field)
		}
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: missing %q, want %q", name, got, tt.want)
		}
	}
}

// TestBuildHostileTexts: names of any length and content neither act on a terminal nor grow the statement, and are marked.
func TestBuildHostileTexts(t *testing.T) {
	hostile := strings.Repeat("\x1b]0;x\a\u009b31m\u202e\xff\n{\"run\":\"forged\"}", 5000)
	events := []event.Event{event.RunStarted{Argv: []string{hostile}, Project: hostile, Policy: event.PolicyRef{Path: hostile, Problems: []string{hostile}}}}
	for i := range 2000 {
		name := fmt.Sprint(i, hostile)
		events = append(
			events,
			event.ConnectionRefused{Proto: "tcp", Address: name, Reason: hostile, Count: 1}, event.Connection{ID: uint64(i + 1), Name: name, Rule: hostile, Outcome: event.ConnectionAllowed, Count: 1},
			event.ProtectedTouched{Path: name, Tier: "reject", Reason: hostile}, event.Warning{Message: name}, event.Lowered{What: name, Why: hostile},
		)
	}
	events = append(events, event.ChangesExtracted{}, event.RunFinished{Outcome: event.Failure, Reason: hostile})
	in := Input{Summary: fold(events...), Files: fstest.MapFS{"plan.json": {Data: []byte(testPlan)}, "stdout.log": {Data: []byte(hostile)}}}
	payload, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	if len(payload) > MaxSize {
		t.Errorf("%d bytes", len(payload))
	}
	p := decoded(t, in)
	if p.Run != testRun || p.Egress.HostCount != 2000 || p.Warnings.Count != 2000 {
		t.Errorf("run %q, %d hosts, %d warnings", p.Run, p.Egress.HostCount, p.Warnings.Count)
	}
	for _, field := range []string{"egress.hosts", "egress.refused", "workspace.protected", "outcome.reason", "policy.problems", "invocation.command"} {
		if !slices.Contains(p.Clipped, field) {
			t.Errorf("%s is clipped and not marked: %q", field, p.Clipped)
		}
	}
	p.Invocation.Command, p.Included = nil, nil // exact, as the caller gave them and as the policy asks for them
	rest, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(rest, &tree); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"\x1b", "\a", "\u009b", "\u202e", "\n"} {
		if strings.Contains(fmt.Sprint(tree), bad) {
			t.Errorf("%q came through", bad)
		}
	}
}

// TestBuildReadErrors: a record that can't be read gives no statement that says it was empty.
func TestBuildReadErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "events.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	if b, err := Build(Input{Summary: fold(), Files: os.DirFS(dir)}); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", b, err)
	}
}

// BenchmarkBuild is a run of 100,000 connections and 50,000 changed files: what their record is folded into.
func BenchmarkBuild(b *testing.B) {
	f := event.NewFold(testRun)
	for i := range 100_000 {
		_ = f.Handle(event.Envelope{Run: testRun, Data: event.Connection{ID: uint64(i + 1), Name: fmt.Sprintf("host-%d.example", i%5000), Port: 443, Outcome: event.ConnectionAllowed, Up: 100, Count: 1}})
	}
	_ = f.Handle(event.Envelope{Run: testRun, Data: event.ChangesExtracted{Added: 50_000, Digest: "ff", Patch: "00"}})
	_ = f.Handle(event.Envelope{Run: testRun, Data: event.RunFinished{Outcome: event.Success}})
	log := make([]byte, event.MaxPerKind*400) // the size of so many events
	files := fstest.MapFS{"plan.json": {Data: []byte(testPlan)}, "events.jsonl": {Data: log}}
	size := 0
	for b.Loop() {
		payload, err := Build(Input{Summary: f.Summary(), Files: files})
		if err != nil {
			b.Fatal(err)
		}
		size = len(payload)
	}
	b.ReportMetric(float64(size), "bytes")
}
