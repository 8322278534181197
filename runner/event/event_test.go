package event

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const testRun = "20261123-152240-3k7f9c"

func testTime() time.Time {
	return time.Date(2026, 11, 23, 15, 22, 40, 123456789, time.UTC)
}

func testExpiry() *time.Time {
	at := testTime().Add(time.Hour)
	return &at
}

func testScope(level string) *CredentialScope {
	return &CredentialScope{
		Repositories: []CredentialRepository{{ID: 7, Name: "acme/shop"}}, Permissions: map[string]string{"contents": level}, Push: []string{"refs/heads/agent/*"},
	}
}

// everyEvent has each kind once, in the order of a run, with every field filled.
func everyEvent() []Event {
	process := Process{
		UID: [4]int{1000, 1000, 1000, 1000}, GID: [4]int{1000, 1000, 1000, 1000}, Groups: []int{1000},
		CapInh: "0000000000000000", CapPrm: "0000000000000000", CapEff: "0000000000000000", CapBnd: "0000000000000000",
		CapAmb: "0000000000000000", NoNewPrivs: true, Seccomp: 2, Threads: 1,
	}
	return []Event{
		RunStarted{
			Contract: Contract, Runner: "v1.0.0", Argv: []string{"make", "test"}, Project: "/home/dev/shop",
			Policy: PolicyRef{Path: ".agent-sandbox.yaml", Digest: "cc", CeilingDigest: "dd", Origin: "base-branch", Commit: "c0", Problems: []string{"none"}}, TTY: true, Timeout: 30 * time.Minute,
			Invocation: Invocation{
				Trigger: TriggerActions, Actor: "dev", ActorID: "1", Repository: "acme/shop", RepositoryID: "7", RepositoryOwnerID: "8", Workflow: "w",
				WorkflowSHA: "c1", Job: "j", Event: "push", Ref: "refs/heads/main", SHA: "c2", RunURL: "https://github.com/acme/shop/actions/runs/1",
			},
			Task: &Task{SHA256: "t0", PromptSHA256: "t1", Args: []int{1}},
		},
		RunnerIdentified{SHA256: "r0", Detail: "none"},
		SourceState{
			Repositories: []SourceRepository{{ID: "7", Name: "acme/shop", URL: "https://github.com/acme/shop"}}, Commit: "c2", Ref: "refs/heads/main",
			Dirty: new(true), DirtySHA256: "d0", DirtyFiles: 2, Detail: "none",
		},
		OutputKept{Stream: "stdout", SHA256: "o0", Bytes: 10, Lost: 2},
		FileNamed{Name: "report", Path: "out/report.json", SHA256: "f0", Bytes: 12},
		RunPlanned{
			Image:  Image{Reference: "agent:1", ID: "sha256:aa", Digest: "sha256:bb"},
			Engine: Engine{Version: "28.5", API: "1.51", Kernel: "6.12", Runtime: "runc 1.3", Platform: "linux/amd64", Cgroup: 2},
			Mode:   "copy",
		},
		PhaseStarted{Name: Create},
		PhaseFinished{Name: Create, Duration: 42 * time.Millisecond},
		Lowered{What: "workspace: copy instead of overlay", Why: "the engine is remote", Mend: "use a local engine"},
		GuestMeasured{
			Agent: process, Guest: process, Namespaces: map[string]string{"net": "net:[4026532281]"}, Mounts: 20, MountsDigest: "ee",
			Interfaces: []string{"lo"}, Cgroup: CgroupLimits{Version: 2, MemoryBytes: 4 << 30, PIDs: 512, CPUMicros: 200000},
			Network:   Capture{TCP: true, IPv6: true, Datagrams: false, Reasons: []string{"no nfnetlink_log"}},
			Isolation: Isolation{Reach: []string{"signal"}, Exposed: []string{"/proc/sysrq-trigger"}, StrictCalls: true, Control: []string{"reach"}, AgentOOM: 500}, Kernel: "6.12",
		},
		AgentStarted{PID: 7, Workdir: "/workspace"},
		ConnectionRefused{Proto: "tcp", Address: "192.0.2.7", Port: 443, Name: "evil.example", Reason: "not allowed", Add: "evil.example", Count: 12},
		Connection{
			ID: 1, Name: "shop.example", Address: "28.4.0.1", Port: 443, Upstream: "192.0.2.9:443", Via: "proxy.example:3128", Protocol: "tls",
			ServerName: "shop.example", Outcome: ConnectionAllowed, Code: "allowed", Reason: "an allow rule names it", Rule: "shop.example",
			Place: "policy.yaml:4:7", Up: 1000, Down: 20000, Requests: 2, Start: testTime(), Duration: 90 * time.Second, Count: 1,
		},
		Request{
			Connection: 1, Host: "shop.example", Port: 443, Method: "POST", Path: "/v1/\x1b[31m", Status: 403, Outcome: ConnectionWasRefused, Code: "leak",
			Reason: "no", Rule: "shop.example", Line: "POST /v1/**", Place: "policy.yaml:4:7", Leak: "model",
			Up: 10, Down: 200, Start: testTime(), Duration: 30 * time.Millisecond, Count: 1,
		},
		NameRefused{Name: "evil.example", Type: "A", Add: "evil.example", Count: 3},
		RefusalsUnlisted{Connections: 5, Names: 2},
		OutputTruncated{Stream: "stdout", Limit: 64 << 20, Bytes: 1 << 30},
		Redacted{Where: RedactedStdout, Credential: "github", Count: 2},
		AgentExited{Code: 137, Signal: "SIGKILL", Reason: OOMKilled, Error: "none", OOMKills: 1, PeakMemory: 4 << 30, CPUMicros: 5e6, PeakPIDs: 21},
		ChangesExtracted{Added: 3, Modified: 1, Deleted: 2, Renamed: 1, Mode: 1, Git: 1, Reject: 1, Warn: 1, Bytes: 4096, Digest: "ff", Patch: "00", Tree: "4b825d"},
		ProtectedTouched{Path: ".husky/pre-commit\x1b[31m", Tier: "reject", Reason: "runs on the host at commit"},
		Warning{Message: "the disk is nearly full", Mend: "remove old runs"},
		EventsDropped{Dropped: "warning", Count: 9},
		CredentialIssued{
			Name: "github", Source: "github-oidc", Deliver: "inject", Env: []string{"GH_TOKEN"}, Hosts: []string{"api.github.com"},
			Requested: testScope("write"), Granted: testScope("read"), Issued: testTime(), Expires: testExpiry(), TokenSHA256: "AA==",
			Broker: "https://broker.example", Identity: "agent", IssuanceID: "i-1", Broad: "no",
		},
		CredentialRenewed{Name: "github", Expires: testExpiry(), TokenSHA256: "BB==", Count: 1},
		CredentialUsed{Name: "github", Requests: 3, Permissions: map[string]string{"contents": "write"}, PerHost: map[string]uint64{"api.github.com": 3}},
		CredentialRevoked{Name: "github", TokenSHA256: "AA==", Status: RevocationVerified, Detail: "after 1 s"},
		RunFinished{
			Outcome: OOM, ExitCode: 137, Reason: "memory limit 4 GiB", Duration: 72 * time.Second,
			Phases: map[Phase]time.Duration{Create: 42 * time.Millisecond},
			Counts: Counts{AllowedConnections: 1, Up: 1000, Down: 20000, RefusedConnections: 17, RefusedNames: 5, Lowered: 1, Warnings: 1, Protected: 1},
		},
	}
}

func envelopes(events ...Event) []Envelope {
	list := make([]Envelope, len(events))
	for i, e := range events {
		at := testTime().Add(time.Duration(i) * time.Second)
		list[i] = Envelope{Seq: uint64(i + 1), Time: at, Kind: e.Kind(), Run: testRun, Data: e}
	}
	return list
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// The JSON of every kind is a contract: this file may only grow.
func TestContract(t *testing.T) {
	var b bytes.Buffer
	for _, env := range envelopes(everyEvent()...) {
		line, err := encode(env, "")
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	golden(t, "contract.jsonl", b.Bytes())

	d := json.NewDecoder(&b)
	for _, want := range envelopes(everyEvent()...) {
		var got Envelope
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s changed on the way (-want +got):\n%s", want.Kind, diff)
		}
	}
}

func TestContractIsFilled(t *testing.T) {
	for _, e := range everyEvent() {
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		for _, empty := range []string{`""`, `null`, `[]`, `{}`} {
			if strings.Contains(string(b), ":"+empty) {
				t.Errorf("%s: the example leaves a field empty: %s", e.Kind(), b)
			}
		}
	}
}

// A type with a Kind that decode does not know would vanish from recovered runs.
func TestEveryTypeIsDecoded(t *testing.T) {
	examples := map[string]bool{"Unknown": true}
	for _, e := range everyEvent() {
		examples[strings.TrimPrefix(typeName(e), "event.")] = true
		if decoders()[e.Kind()] == nil {
			t.Errorf("decoders lacks %q", e.Kind())
		}
	}
	for _, name := range typesWithKind(t) {
		if !examples[name] {
			t.Errorf("type %s is missing from everyEvent", name)
		}
	}
	if got, want := len(decoders()), len(everyEvent()); got != want {
		t.Errorf("decoders has %d kinds, everyEvent %d", got, want)
	}
}

func typesWithKind(t *testing.T) []string {
	t.Helper()
	notTest := func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !strings.HasSuffix(entry.Name(), ".go") || !notTest(info) {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), entry.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name == "Kind" {
				names = append(names, f.Recv.List[0].Type.(*ast.Ident).Name)
			}
		}
	}
	if len(names) == 0 {
		t.Fatal("found no type with a Kind method")
	}
	return names
}

func TestUnknownKindSurvives(t *testing.T) {
	const line = `{"data":{"new":1},"kind":"future.thing","run":"r","seq":1,"time":"2026-11-23T15:22:40Z"}`
	var env Envelope
	if err := json.Unmarshal([]byte(line), &env); err != nil {
		t.Fatal(err)
	}
	got, err := encode(env, "")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != line {
		t.Errorf("got %s, want %s", got, line)
	}
}

func TestEncodeHostileStrings(t *testing.T) {
	env := envelopes(NameRefused{Name: "a\x1b]0;x\a\n\u202e\xff</script>", Type: "A"})[0]
	line, err := encode(env, "")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsAny(line, "\x1b\a\n") {
		t.Errorf("raw control characters in %q", line)
	}
	var back Envelope
	if err := json.Unmarshal(line, &back); err != nil {
		t.Fatal(err)
	}
	if got, want := back.Data.(NameRefused).Name, "a\x1b]0;x\a\n\u202e\ufffd</script>"; got != want {
		t.Errorf("name came back as %q, want %q", got, want)
	}
}

// Whatever its size, an event leaves a line that fits and can be read.
func TestEncodeClips(t *testing.T) {
	long := strings.Repeat("\x01\xf0\x9f\x98\x80", 1<<18)
	giants := []Event{
		RunStarted{Argv: []string{long, long}, Project: long},
		RunStarted{Argv: strings.Split(strings.Repeat("x ", 1<<18), " ")},
		GuestMeasured{Namespaces: map[string]string{long: long}},
		Warning{Message: long},
	}
	for _, e := range giants {
		line, err := encode(envelopes(e)[0], hash(nil))
		if err != nil {
			t.Fatal(err)
		}
		if len(line) > MaxLine {
			t.Errorf("%s: line of %d bytes", e.Kind(), len(line))
		}
		if _, err := checkLine(line, testRun, Head{Hash: hash(nil)}); err != nil {
			t.Errorf("%s: %v", e.Kind(), err)
		}
		if !bytes.Contains(line, []byte(`"clipped":true`)) {
			t.Errorf("%s: not marked as clipped", e.Kind())
		}
	}
}
