//go:build docker

package runner

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runs"
)

// setup is a sandbox: as it should be, or with protections left out.
type setup struct {
	name    string
	policy  string               // its body
	edit    func(*policy.Policy) // changes it
	guest   []string             // what the guest leaves out
	seam    seam
	prepare func(t *testing.T, project string)
	// mounts are further weakenings, which the project's path is needed for.
	mounts  func(project string) []engine.Mount
	image   string            // in place of the suite's
	world   *world            // that the sandbox can reach; nil for none
	env     map[string]string // of the runner; nil for the suite's
	stdin   io.Reader         // in place of the text
	handler handler           // of the run's events; nil for none
	store   *runs.Store       // in place of the suite's
	// credentials is what sources draw on.
	credentials CredentialSources
}

// handler is a function that takes events.
type handler func(event.Envelope) error

// Handle implements event.Handler.
func (h handler) Handle(e event.Envelope) error { return h(e) }

// step and answer are escapeprobe's; see there.
type step struct {
	Name string   `json:"name"`
	Op   string   `json:"op"`
	Args []string `json:"args"`
}

type answer struct {
	Answer, Detail string
}

// box is a sandbox after its run.
type box struct {
	result   Result
	err      error
	answers  map[string]answer
	events   []event.Event
	manifest manifest.Predicate
	stdout   []byte
	stderr   []byte
	project  string
}

func testContext() context.Context { return context.Background() }

// try makes the steps in a new sandbox.
func (l *lab) try(t *testing.T, s setup, steps []step) *box {
	t.Helper()
	b := l.start(t, s, []string{"/workspace/.probe/escapeprobe"}, encode(t, steps))
	b.answers = decodeAnswers(t, b.stdout)
	return b
}

// start runs a command in a new sandbox of a new project.
func (l *lab) start(t *testing.T, s setup, argv []string, stdin []byte) *box {
	t.Helper()
	b := &box{project: l.newProject(t)}
	if s.prepare != nil {
		s.prepare(t, b.project)
	}
	if len(s.guest) > 0 {
		s.seam.container.Guest = l.weak
		s.seam.container.GuestEnv = []string{"AGENT_SANDBOX_WEAKENED=" + strings.Join(s.guest, ",")}
	}
	if s.mounts != nil {
		s.seam.container.Mounts = s.mounts(b.project)
	}
	lookupEnv := os.LookupEnv
	if s.env != nil {
		lookupEnv = func(name string) (string, bool) { v, ok := s.env[name]; return v, ok }
	}
	var cas [][]byte
	if s.world != nil {
		cas = [][]byte{s.world.authority}
		s.seam.egress.Dial = s.world.dial
		if !s.world.realNames {
			s.seam.egress.Lookup = s.world.lookup
		}
	}
	p := testPolicy(t, s.policy)
	if s.edit != nil {
		s.edit(p)
	}
	ctx, cancel := context.WithTimeout(t.Context(), boxTimeout)
	defer cancel()
	var in io.Reader = bytes.NewReader(stdin)
	if s.stdin != nil {
		in = s.stdin
	}
	var handlers []event.Handler
	if s.handler != nil {
		handlers = append(handlers, s.handler)
	}
	var stdout, stderr bytes.Buffer
	b.result, b.err = Run(ctx, Config{
		Version: "test", Argv: argv, Project: b.project, Image: cmp.Or(s.image, l.image), Policy: p,
		Engine: l.engine, Store: cmp.Or(s.store, l.store),
		CAs: cas, LookupEnv: lookupEnv, Credentials: s.credentials, Stdin: in, Handlers: handlers, Stdout: &stdout, Stderr: &stderr, seam: s.seam,
	})
	b.stdout, b.stderr = stdout.Bytes(), stderr.Bytes()
	b.events = recorded(t, cmp.Or(s.store, l.store), b.result.Run)
	b.manifest = l.evidence(t, b.result, s.seam.manifest)
	return b
}

// evidence is what the manifest of a run says: each has one, which is as the published schema says, unless the test is about its loss.
func (l *lab) evidence(t *testing.T, r Result, w manifest.Weakened) manifest.Predicate {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(r.Dir, runs.ManifestFile))
	if w.Long && errors.Is(err, fs.ErrNotExist) {
		return manifest.Predicate{}
	}
	if err == nil {
		err = l.schema.Manifest(content)
	}
	f, readErr := manifest.Read(content)
	if err = errors.Join(err, readErr); err != nil {
		t.Fatalf("the manifest of run %s: %v", r.Run, err)
	}
	return f.Statement.Predicate
}

// recorded reads a run's events back from its chained log, which must verify.
func recorded(t *testing.T, store *runs.Store, id string) []event.Event {
	t.Helper()
	r, err := store.Resolve(id)
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.Open(runs.EventsFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []event.Event
	_, err = event.ReadChain(f, id, func(e event.Envelope) error {
		all = append(all, e.Data)
		return nil
	})
	if err != nil {
		t.Fatalf("events of run %s: %v", id, err)
	}
	return all
}

// newProject is a directory of root's, so that the agent works through a mapped mount, with the probe in it.
func (l *lab) newProject(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(l.dir, "project-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, ".probe"), 0o755); err != nil {
		t.Fatal(err)
	}
	copyProgram(t, l.probe, filepath.Join(dir, ".probe", "escapeprobe"))
	return dir
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// outside makes the steps on the host, as the user who runs the tests.
func (l *lab) outside(t *testing.T, steps []step) map[string]answer {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), l.probe)
	cmd.Stdin = bytes.NewReader(encode(t, steps))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("escapeprobe outside: %v", err)
	}
	return decodeAnswers(t, out)
}

func encode(t *testing.T, steps []step) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, s := range steps {
		if err := json.NewEncoder(&b).Encode(s); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func decodeAnswers(t *testing.T, out []byte) map[string]answer {
	t.Helper()
	all := map[string]answer{}
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var a struct {
			Name string
			answer
		}
		err := dec.Decode(&a)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("escapeprobe printed %q: %v", out, err)
		}
		all[a.Name] = a.answer
	}
}

// boxed is a box that several entries look at.
type boxed struct {
	once sync.Once
	box  *box
}

// shared makes the box of a setup when it is first asked for.
func (l *lab) shared(t *testing.T, s setup, steps func() []step) *box {
	t.Helper()
	l.mu.Lock()
	b := l.boxes[s.name]
	if b == nil {
		b = &boxed{}
		l.boxes[s.name] = b
	}
	l.mu.Unlock()
	b.once.Do(func() {
		made := l.try(t, s, steps())
		if made.err != nil {
			t.Errorf("%s: %v\n%s", s.name, made.err, made.stderr)
		}
		b.box = made
	})
	if b.box == nil || b.box.err != nil {
		t.Fatalf("no sandbox %q", s.name)
	}
	return b.box
}

// has tells whether one of the events is as wanted.
func (b *box) has(wanted func(event.Event) bool) bool { return slices.ContainsFunc(b.events, wanted) }

// finished is the run's last event.
func (b *box) finished() event.RunFinished {
	f, _ := b.events[len(b.events)-1].(event.RunFinished)
	return f
}

// Weak setups are not checked: the check is what would refuse them.
func weak(name, policy string, guest []string, w engine.Weakened) setup {
	return setup{name: name, policy: policy, guest: guest, seam: seam{container: w, unchecked: true}}
}
