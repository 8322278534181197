//go:build docker

package workspace

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/workspace/ovl"
)

// A separateRunner is a process that prepares a view, so that it can be killed, or be another user than root.
type separateRunner struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	out     *bufio.Scanner
	options string // of the overlay
}

const (
	envProject = "WORKSPACE_TEST_PROJECT"
	envState   = "WORKSPACE_TEST_STATE"
)

// TestSeparateRunner is what the process does: it prepares and hides, prints the options, and, when it is told where
// the attributes of upper/ are, extracts and prints the change set.
func TestSeparateRunner(t *testing.T) {
	project := os.Getenv(envProject)
	if project == "" {
		t.Skip("started by the other tests")
	}
	v, err := Prepare(t.Context(), Config{
		Project: project, StateDir: os.Getenv(envState), Mode: policy.ModeOverlay, UID: 1000, GID: 1000,
		Hide: matcherOf(t, ".env"), Engine: Engine{Local: true, SharesPIDs: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Hide(t.Context()); err != nil {
		t.Fatal(err)
	}
	fmt.Println("\noptions: " + v.Mounts[0].Options["o"])
	dump, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	cs, err := v.Extract(t.Context(), Sources{Xattrs: dumped(strings.TrimSpace(dump))})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(describe(cs))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("\nchanges: %s\n", text)
}

// dumped reads what a helper with more rights wrote to a file.
type dumped string

func (d dumped) Xattrs(context.Context, string) (map[string]ovl.Attrs, error) {
	f, err := os.Open(string(d))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ovl.Parse(f)
}

func startRunner(t *testing.T, project, state string, as *syscall.Credential) *separateRunner {
	t.Helper()
	// Not by its path, which another user may not reach.
	r := &separateRunner{cmd: exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestSeparateRunner$")}
	r.cmd.Env = append(os.Environ(), envProject+"="+project, envState+"="+state)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.out = bufio.NewScanner(stdout)
	r.options = r.line(t, "options: ")
	return r
}

// line waits for the line with that beginning, and returns the rest of it.
func (r *separateRunner) line(t *testing.T, prefix string) string {
	t.Helper()
	var all strings.Builder
	for r.out.Scan() {
		if rest, ok := strings.CutPrefix(r.out.Text(), prefix); ok {
			return rest
		}
		all.WriteString(r.out.Text() + "\n")
	}
	t.Fatalf("the runner ended without %q:\n%s", prefix, &all)
	return ""
}

// runArgs are those of `docker run` for a command on the runner's view.
func (r *separateRunner) runArgs(flags, command []string) []string {
	v := &View{Mounts: []Mount{{Type: MountVolume, NoCopy: true, Options: map[string]string{"type": "overlay", "device": "overlay", "o": r.options}}}}
	args := append([]string{"run", "--rm", "--network=none", "--user=1000:1000", "--entrypoint=", "-w", workdir}, flags...)
	args = append(append(args, mountArgs(v)...), engineImage())
	return append(args, command...)
}

// The mapped mount belongs to the runner's process and to nothing else: neither before the container started nor after
// does a kill -9 leave one, and a container that runs keeps what it has.
func TestKilledRunnerLeavesNoMount(t *testing.T) {
	for _, started := range []bool{false, true} {
		t.Run(fmt.Sprintf("started=%t", started), func(t *testing.T) {
			project, state := t.TempDir(), t.TempDir()
			populate(t, project, "a=1")
			r := startRunner(t, project, state, nil)
			args := r.runArgs([]string{"-d"}, []string{"sleep", "600"})
			var id string
			if started {
				id = strings.TrimSpace(docker(t, args...))
				t.Cleanup(func() { _, _ = tryDocker(t, "rm", "-fv", id) })
			}
			if err := r.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = r.cmd.Wait() // says that it was killed
			if started {
				if got := docker(t, "exec", id, "sh", "-c", "echo 2 >>a; cat a"); got != "12\n" {
					t.Errorf("the container that runs: %q", got)
				}
				docker(t, "rm", "-fv", id)
			} else if out, err := tryDocker(t, args...); err == nil {
				t.Errorf("a container started (%s) with the mount of a process that is gone", out)
				docker(t, "rm", "-fv", strings.TrimSpace(out))
			}
			info, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(info)) {
				if strings.Contains(line, project) || strings.Contains(line, state) || strings.Contains(line, r.options) {
					t.Errorf("left behind: %s", line)
				}
			}
			if got := readTree(t, project)["a"].Content; got != "1" {
				t.Errorf("the project's file: %q", got)
			}
		})
	}
}

// A runner without any rights: the engine follows its descriptors, it makes whiteouts, reads what the agent closed to
// it, and removes what the kernel left; only the attributes are read by somebody else.
func TestRunnerWithoutRoot(t *testing.T) {
	base, err := os.MkdirTemp("", "without-root-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	project, state := filepath.Join(base, "project"), filepath.Join(base, "state")
	populate(t, base, "state/", "project/a=1", "project/d/b=2", "project/d/.env=s", "project/gone/c=3")
	if err := os.Chmod(base, 0o711); err != nil {
		t.Fatal(err)
	}
	run(t, "chown", "-R", "1000:1000", project, state)
	r := startRunner(t, project, state, &syscall.Credential{Uid: 1000, Gid: 1000})
	out := docker(t, r.runArgs(nil, []string{"sh", "-c", `ls -A d; echo 9 >>a; mv d e; rm -r gone; mkdir gone; mkdir -p f/g; echo x >f/g/h; chmod 0 f/g/h f/g f a`})...)
	if out != "b\n" {
		t.Errorf("inside: %q", out)
	}
	var dump bytes.Buffer
	if err := ovl.Dump(&dump, filepath.Join(state, "upper")); err != nil {
		t.Fatal(err)
	}
	// What the helper container does as well.
	if err := ovl.Empty(filepath.Join(state, "work", "work")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(base, "dump")
	if err := os.WriteFile(path, dump.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(r.stdin, path); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := json.Unmarshal([]byte(r.line(t, "changes: ")), &got); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	want := "modified a\nadded e\nrenamed d/b -> e/b\nadded f\nadded f/g\nadded f/g/h\ndeleted gone/c"
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	for _, left := range []string{"upper", "work"} {
		if _, err := os.Lstat(filepath.Join(state, left)); !os.IsNotExist(err) {
			t.Errorf("%s/ is left: %v", left, err)
		}
	}
}
