//go:build docker

package workspace

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
)

// These tests give the view's mounts to the engine that DOCKER_HOST names, through its command line.

const workdir = "/workspace"

func engineImage() string {
	return cmp.Or(os.Getenv("AGENT_SANDBOX_TEST_IMAGE"), os.Getenv("IMAGE"), "agent-sandbox:dev")
}

// localEngine is an engine on this host, of which it is proved that it shares our /proc.
func localEngine(t *testing.T) Engine {
	t.Helper()
	u, err := url.Parse(cmp.Or(os.Getenv("DOCKER_HOST"), "unix:///var/run/docker.sock"))
	if err != nil || u.Scheme != "unix" {
		t.Fatalf("DOCKER_HOST: %v, %v", u, err)
	}
	if !SharesPIDs(u.Path) {
		t.Fatalf("SharesPIDs(%q) = false for an engine on this host", u.Path)
	}
	return Engine{Local: true, SharesPIDs: true}
}

// docker runs the engine's command line and returns its standard output.
func docker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := tryDocker(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryDocker(t testing.TB, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("docker %q: %w\n%s%s", args, err, out, &stderr)
	}
	return string(out), nil
}

// mountArgs are the options of `docker create` for a view. The command line reads each mount as a line of CSV.
func mountArgs(v *View) []string {
	var args []string
	for _, m := range v.Mounts {
		fields := []string{"type=" + string(m.Type), "dst=" + strings.TrimSuffix(workdir+"/"+m.Path, "/")}
		if m.Source != "" {
			fields = append(fields, "src="+m.Source)
		}
		if m.ReadOnly {
			fields = append(fields, "readonly")
		}
		if m.NonRecursive {
			fields = append(fields, "bind-nonrecursive")
		}
		if m.NoCopy {
			fields = append(fields, "volume-nocopy")
		}
		for k, val := range m.Options {
			fields = append(fields, "volume-opt="+k+"="+val)
		}
		for i, f := range fields {
			fields[i] = `"` + strings.ReplaceAll(f, `"`, `""`) + `"`
		}
		args = append(args, "--mount", strings.Join(fields, ","))
	}
	return args
}

// inContainer runs a shell script on the view, as the agent, and gives what it prints.
func inContainer(t *testing.T, v *View, script string) string {
	t.Helper()
	if _, err := v.Hide(t.Context()); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"run", "--rm", "--network=none", "--cap-drop=ALL", fmt.Sprintf("--user=%d:%d", v.cfg.UID, v.cfg.GID), "--entrypoint="}, mountArgs(v)...)
	out := docker(t, append(args, "-w", workdir, engineImage(), "sh", "-c", script)...)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

func extractLines(t *testing.T, v *View) string {
	t.Helper()
	cs, err := v.Extract(t.Context(), Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if err := cs.check(); err != nil {
		t.Error(err)
	}
	return describe(cs)
}

// A project of root, an agent of uid 1000: it may write what root may, and on the host nothing moves.
func TestEngineMapsTheOwner(t *testing.T) {
	project := t.TempDir()
	populate(t, project, "a=1", "d/b=2", "d/c=3", ".env=s", "d/.env=s", "of1000=x")
	for p, mode := range map[string]fs.FileMode{"a": 0o644, "d": 0o755, "d/b": 0o600} {
		if err := os.Chmod(filepath.Join(project, p), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(project, "of1000"), 1000, 1000); err != nil {
		t.Fatal(err)
	}
	before, stamps := readTree(t, project), readStamps(t, project)
	v := prepare(t, Config{Project: project, Mode: policy.ModeOverlay, UID: 1000, GID: 1000, Hide: matcherOf(t, ".env"), Engine: localEngine(t)})
	out := inContainer(t, v, `id -u; stat -c '%n %u:%g %a' . a d d/b of1000; ls -A . d
		echo 9 >>a && echo 9 >>d/b && mv d e && mkdir f && ln -s a l && chmod 700 a && rm of1000 && echo done`)
	want := "1000\n. 1000:1000 755\na 1000:1000 644\nd 1000:1000 755\nd/b 1000:1000 600\nof1000 0:0 644\n.:\na\nd\nof1000\n\nd:\nb\nc\ndone\n"
	if diff := gocmp.Diff(want, out); diff != "" {
		t.Errorf("inside (-want +got):\n%s", diff)
	}
	wantChanges := "modified a\ndeleted d/b\nadded e\nadded e/b\nrenamed d/c -> e/c\nadded f\nadded l\ndeleted of1000"
	if diff := gocmp.Diff(wantChanges, extractLines(t, v)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if diff := gocmp.Diff(before, readTree(t, project)); diff != "" {
		t.Errorf("the project changed:\n%s", diff)
	}
	if diff := gocmp.Diff(stamps, readStamps(t, project)); diff != "" {
		t.Errorf("times or owners changed:\n%s", diff)
	}
}

// Names that the engine's and the kernel's option parsers could take apart, through descriptors and by path.
func TestEngineTakesAnyName(t *testing.T) {
	for _, name := range []string{"co,mma", "co:lon", `back\slash`, `all\,:of\\them,`, "x,ro", "x,ro,y", "new\nline", "tab\t", " space ", `quo"te`, "b=c,d=e", "uid=1000", "\u00fc"} {
		for _, byPath := range []bool{false, true} {
			t.Run(fmt.Sprintf("%q,path=%t", name, byPath), func(t *testing.T) {
				base := t.TempDir()
				project, state := filepath.Join(base, name), filepath.Join(base, "state", name)
				populate(t, project, "a=1", ".env=s")
				if err := os.MkdirAll(state, 0o700); err != nil {
					t.Fatal(err)
				}
				engine := localEngine(t)
				engine.SharesPIDs = !byPath
				v := prepare(t, Config{Project: project, StateDir: state, Mode: policy.ModeOverlay, Hide: matcherOf(t, ".env"), Engine: engine})
				if got := inContainer(t, v, "ls -A; cat a; echo 2 >a"); got != "a\n1" {
					t.Errorf("inside: %q", got)
				}
				if got := extractLines(t, v); got != "modified a" {
					t.Errorf("changes: %q", got)
				}
			})
		}
	}
}

func TestEngineGetsNamesThatAreNotUTF8(t *testing.T) {
	base := t.TempDir()
	project := filepath.Join(base, "inv\xff\xfe")
	populate(t, project, "a=1")
	v := prepare(t, Config{Project: project, Mode: policy.ModeOverlay, Engine: localEngine(t)})
	if got := inContainer(t, v, "cat a; mount | grep "+workdir); strings.Contains(got, base) || !strings.HasPrefix(got, "1") {
		t.Errorf("inside: %q, want the file, and no path of the host in the mount table", got)
	}
}

// The overlay of the random test, but mounted by the engine; the actor reaches it through the container's root.
func TestEngineChangeSetsAgree(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			project, plain := t.TempDir(), t.TempDir()
			newActor(t, rand.New(rand.NewPCG(seed, 20)), project).build()
			clone(t, project, plain)
			before := readTree(t, project)
			ops := func(dir string) { newActor(t, rand.New(rand.NewPCG(seed, 21)), dir).act(60) }
			ops(plain)

			v := prepare(t, Config{Project: project, Mode: policy.ModeOverlay, UID: 1000, GID: 1000, Engine: localEngine(t)})
			id := start(t, v)
			ops(filepath.Join("/proc", containerPID(t, id), "root", workdir))
			docker(t, "rm", "-fv", id)
			cs, err := v.Extract(t.Context(), Sources{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(readTree(t, plain), reference(t, v, cs, before)); diff != "" {
				t.Errorf("project + change set is not what the agent had (-agent +applied):\n%s", diff)
			}
			if diff := gocmp.Diff(before, readTree(t, project)); diff != "" {
				t.Errorf("the project changed:\n%s", diff)
			}
		})
	}
}

// start starts a container that waits, and returns its id.
func start(t *testing.T, v *View) string {
	t.Helper()
	if _, err := v.Hide(t.Context()); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"run", "-d", "--rm", "--network=none", "--entrypoint="}, mountArgs(v)...)
	id := strings.TrimSpace(docker(t, append(args, engineImage(), "sleep", "600")...))
	t.Cleanup(func() { _, _ = tryDocker(t, "rm", "-fv", id) })
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	return id
}

func containerPID(t *testing.T, id string) string {
	t.Helper()
	pid := strings.TrimSpace(docker(t, "inspect", "-f", "{{.State.Pid}}", id))
	if n, err := strconv.Atoi(pid); err != nil || n <= 1 {
		t.Fatalf("container %s has the pid %q", id, pid)
	}
	return pid
}

// A copy goes in before the start and comes back after the end, by the engine's own archives.
func TestEngineCopies(t *testing.T) {
	project := t.TempDir()
	populate(t, project, "a=1", "d/b=2", "d/key.pem=s", "gone/x=3", "l@a", "same=4", "inv\xff=1", "new\nline=1")
	if err := os.Link(filepath.Join(project, "same"), filepath.Join(project, "hard")); err != nil {
		t.Fatal(err)
	}
	before, stamps := readTree(t, project), readStamps(t, project)
	v := prepare(t, Config{Project: project, Mode: policy.ModeCopy, UID: 1000, GID: 1000, Hide: matcherOf(t, "*.pem")})
	args := append([]string{"create", "--network=none", "--user=0", "--entrypoint="}, mountArgs(v)...)
	// The directory itself stays root's, whatever the archive says; the guest gives it to the agent, and here a shell does.
	const claim = `chown 1000:1000 .; exec setpriv --reuid=1000 --regid=1000 --clear-groups sh -exc "$0"`
	id := strings.TrimSpace(docker(t, append(args, "-w", workdir, engineImage(), "sh", "-exc", claim,
		`test ! -e d/key.pem; test $(stat -c %u:%g:%a .) = 1000:1000:755; test $(stat -c %h same) = 2
		echo 2 >>a; mv d e; rm -r gone; chmod 700 same; ln -sf d/b l; mkdir -m 711 n; mkfifo fifo; ln a hard2`)...))
	t.Cleanup(func() { _, _ = tryDocker(t, "rm", "-fv", id) })
	dockerPipe(t, func(cmd *exec.Cmd) {
		var b bytes.Buffer
		if err := v.Pack(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		cmd.Stdin = &b
	}, "cp", "-", id+":"+workdir)
	if out, err := exec.CommandContext(t.Context(), "docker", "start", "-a", id).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	var archive bytes.Buffer
	dockerPipe(t, func(cmd *exec.Cmd) { cmd.Stdout = &archive }, "cp", id+":"+workdir+"/.", "-")
	cs, err := v.Extract(t.Context(), Sources{Tar: &archive})
	if err != nil {
		t.Fatal(err)
	}
	want := "modified a\ndeleted d\nadded e\nrenamed d/b -> e/b\nadded fifo\ndeleted gone\ndeleted gone/x\nmode hard\nadded hard2\nmodified l\nadded n\nmode same"
	// On the host d still holds its hidden file, so its deletion is not listed.
	want = strings.Replace(want, "deleted d\n", "", 1)
	if diff := gocmp.Diff(want, describe(cs)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := gocmp.Diff(before, readTree(t, project)); diff != "" {
		t.Errorf("the project changed:\n%s", diff)
	}
	if diff := gocmp.Diff(stamps, readStamps(t, project)); diff != "" {
		t.Errorf("times or owners changed:\n%s", diff)
	}
}

func dockerPipe(t *testing.T, pipe func(*exec.Cmd), args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Stderr = &stderr
	pipe(cmd)
	if err := cmd.Run(); err != nil {
		t.Fatalf("docker %q: %v\n%s", args, err, &stderr)
	}
}

// Attack: the agent renames the directory above a protected file, and makes another.
func TestEngineGuardsABoundProject(t *testing.T) {
	project := t.TempDir()
	populate(t, project, "a=1", ".git/config=1", ".git/hooks/sample=1", ".git/HEAD=1", ".env=secret", ".ssh/id=secret", "d/.env=secret")
	run(t, "chown", "-R", "1000:1000", project)
	cfg := Config{
		Project: project, Mode: policy.ModeBind, UID: 1000, GID: 1000, Engine: localEngine(t),
		Hide: matcherOf(t, ".env", ".ssh/"), Protect: matcherOf(t, ".git/config", ".git/hooks"),
	}
	v := prepare(t, cfg)
	out := inContainer(t, v, `echo 2 >>a && echo 2 >>.git/HEAD && echo control
		for try in 'echo 2 >>.git/config' 'rm .git/config' 'mv .git/config x' 'touch .git/hooks/pre-commit' 'mv .git/hooks x' 'mv .git git2' 'rm -r .git' 'mv .git/HEAD .git/config'; do
			sh -c "$try" 2>/dev/null && echo "worked: $try"
		done
		mv d d2 2>/dev/null && echo "worked: mv d"
		rm -rf x git2 d2; cat .env .ssh/id d/.env 2>/dev/null; ls -A .ssh; true`)
	if out != "control\n" {
		t.Errorf("inside: %q", out)
	}
	if got := readTree(t, project); got[".git/config"].Content != "1" || len(got[".git/hooks/sample"].Content) != 1 || got[".git/hooks/pre-commit"].Type != "" {
		t.Error("what is protected changed")
	}
	want := "deleted .git/HEAD\nmodified a"
	if diff := gocmp.Diff(want, extractLines(t, v)); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}

	cfg.Mode, cfg.StateDir = policy.ModeReadonly, t.TempDir()
	v = prepare(t, cfg)
	if got := inContainer(t, v, `cat a; echo 2 2>/dev/null >a || echo refused; cat .env .ssh/id d/.env 2>/dev/null; true`); got != "12\nrefused\n" {
		t.Errorf("readonly: %q", got)
	}
}
