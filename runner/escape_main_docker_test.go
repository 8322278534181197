//go:build docker

package runner

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/runs"
)

// The escape suite: each entry is an attack from inside, with the protection that stops it. An entry passes only if
//
//   - the sandbox refuses the attack, and
//   - its positive control works in the same run, so that it is the attack that is refused and not everything, and
//   - the same attack succeeds once the protection is left out (see seam and engine.Weakened, and the guest's skip), or
//     outside of a sandbox, and
//   - where the attack is of a kind that leaves a trace, the run's events have it.
//
// What can't be tried somewhere is skipped with the reason, and the table at the end says so.
func TestMain(m *testing.M) {
	flag.Parse()
	lab, err := laboratory()
	if err != nil {
		fmt.Fprintln(os.Stderr, "escape suite:", err)
		os.Exit(1)
	}
	code := m.Run()
	if testing.Verbose() {
		lab.report.print(os.Stdout)
	}
	if err := lab.close(); err != nil {
		fmt.Fprintln(os.Stderr, "escape suite:", err)
		code = 1
	}
	os.Exit(code)
}

// lab is what all sandboxes of the suite share.
type lab struct {
	dir    string // of everything that the suite makes
	probe  string // the program that attacks
	calls  string // the program of engine/internal/sysprobe
	traces string // the program that searches
	weak   string // a directory with a guest in which protections can be left out
	image  string
	store  *runs.Store
	schema *runnertest.Schema // of manifests
	engine engine.Config
	facts  engine.Facts
	socket string // the engine's, empty if it is not local
	report report

	mu    sync.Mutex // guards boxes
	boxes map[string]*boxed
}

// laboratory is made once, by TestMain.
var laboratory = sync.OnceValues(newLab)

func newLab() (*lab, error) {
	dir, err := os.MkdirTemp("", "escape-")
	if err != nil {
		return nil, err
	}
	l := &lab{
		dir: dir, probe: filepath.Join(dir, "escapeprobe"), calls: filepath.Join(dir, "sysprobe"), traces: filepath.Join(dir, "tracesearch"), weak: filepath.Join(dir, "guest"),
		image: cmp.Or(os.Getenv("AGENT_SANDBOX_TEST_IMAGE"), os.Getenv("IMAGE"), "agent-sandbox:dev"), boxes: map[string]*boxed{},
	}
	// MkdirTemp's directories are for this user alone, and the agent is another one.
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(l.weak, 0o755)); err != nil {
		return nil, err
	}
	if err := l.build(); err != nil {
		return nil, err
	}
	if l.store, err = runs.Open(filepath.Join(dir, "state")); err != nil {
		return nil, err
	}
	if l.schema, err = runnertest.NewSchema(manifest.Schema()); err != nil {
		return nil, err
	}
	l.engine = engine.Config{CacheDir: filepath.Join(dir, "cache")}
	e, err := engine.Connect(testContext(), l.engine)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	l.facts = e.Facts()
	if l.facts.Local {
		l.socket = engine.SocketPath(e.Host())
	}
	return l, nil
}

// build makes the programs, and makes sure that the guest which the sandboxes get is the one of this tree.
func (l *lab) build() error {
	for _, b := range []struct{ out, pkg, tags string }{
		{l.probe, "./internal/escapeprobe", ""},
		{l.calls, "./engine/internal/sysprobe", ""},
		{l.traces, "./internal/tracesearch", ""},
		{filepath.Join(l.weak, "guest"), "../cmd/guest", "weakguest"},
		{filepath.Join(l.dir, "fresh"), "../cmd/guest", ""},
	} {
		// The flags of .github/scripts/build.
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-tags="+b.tags, "-o", b.out, b.pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", b.pkg, err, out)
		}
	}
	embedded, err := unpackGuest()
	if err != nil {
		return fmt.Errorf("the guest is not built: run `make build` first: %w", err)
	}
	fresh, err := os.ReadFile(filepath.Join(l.dir, "fresh"))
	if err != nil {
		return err
	}
	if !bytes.Equal(embedded, fresh) {
		return errors.New("the embedded guest is not the one of this tree: run `make build` first")
	}
	return nil
}

func unpackGuest() ([]byte, error) {
	f, err := os.Open("engine/embedded/guest-linux-" + runtime.GOARCH + ".gz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func (l *lab) close() error { return errors.Join(l.store.Close(), os.RemoveAll(l.dir)) }

// testLab is the laboratory, or the end of the test.
func testLab(t *testing.T) *lab {
	t.Helper()
	l, err := laboratory()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// report is the table of all entries.
type report struct {
	mu   sync.Mutex // guards rows
	rows []row
}

type row struct{ part, attack, protection, result string }

func (r *report) add(part, attack, protection, result string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, row{part, attack, protection, result})
}

func (r *report) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "\nattack\tprotection\tresult\n")
	count := map[string]int{}
	for _, row := range r.rows {
		fmt.Fprintf(w, "%s: %s\t%s\t%s\n", row.part, row.attack, row.protection, row.result)
		result, _, _ := strings.Cut(row.result, ":")
		count[result]++
	}
	_ = w.Flush()
	fmt.Fprintf(out, "%d entries: %d refused, %d skipped, %d known limits, %d FAILED\n", len(r.rows), count["refused"], count["skipped"], count["limit"], count["FAILED"])
}

// entry runs one entry as a subtest and puts it into the table. A skip says why by a call of skip.
func (l *lab) entry(t *testing.T, part, attack, protection string, f func(t *testing.T, skip func(why string))) {
	t.Helper()
	t.Run(attack, func(t *testing.T) {
		why := ""
		defer func() {
			switch {
			case t.Failed():
				l.report.add(part, attack, protection, "FAILED")
			case why != "":
				l.report.add(part, attack, protection, "skipped: "+why)
			default:
				l.report.add(part, attack, protection, "refused")
			}
		}()
		f(t, func(reason string) {
			why = reason
			t.Skip(reason)
		})
	})
}

// testPolicy loads a policy that starts with its version.
func testPolicy(t *testing.T, body string) *policy.Policy {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte("version: 1\n"+body))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// boxTimeout bounds one sandbox, which takes a second or three.
const boxTimeout = 3 * time.Minute
