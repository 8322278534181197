//go:build docker

package runner

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// TestEscapeInheritance: what the agent's program gets from the processes before it is what it should have, and no more.
func TestEscapeInheritance(t *testing.T) {
	l := testLab(t)
	look := []step{
		{"descriptors", "fds", nil},
		{"signals", "status", []string{"SigBlk,SigIgn,SigPnd,ShdPnd"}},
		{"rights", "status", []string{"Uid,Gid,Groups,CapInh,CapPrm,CapEff,CapBnd,CapAmb,NoNewPrivs,Seccomp,Umask"}},
		{"terminal", "terminal", nil},
		{"terminal, by its node", "open", []string{"/host-terminal", "w"}},
		{"core limit", "read", []string{"/proc/self/limits"}},
	}
	// Left out: what keeps the guest's channel from the agent, the drop of capabilities, and the change of ids; signals stay as they were at the start.
	off := weak("inheritance, off", "user: root\n", nil, engine.Weakened{CoreFiles: true, Unconfined: true, NewPrivileges: true})
	off.seam.container.Mounts = []engine.Mount{{Source: hostTerminal(t), Target: "/host-terminal"}}
	off.seam.container.Guest = l.ignoringGuest(t)
	off.seam.container.GuestEnv = []string{"AGENT_SANDBOX_WEAKENED=cloexec,capabilities,no_new_privs,signals"}
	kept := weak("inheritance, signals ignored", "", nil, engine.Weakened{Guest: off.seam.container.Guest})
	strict, loose := l.try(t, setup{name: "inheritance"}, look), l.try(t, off, look)
	started := l.try(t, kept, look) // with a signal ignored, and the protection in place
	none := "0000000000000000"
	for _, e := range []struct{ attack, protection, step, want string }{
		{"an open file of the guest's", "close on exec", "descriptors", "0 pipe\n1 pipe\n2 pipe"},
		{
			"capabilities, privileges, another user's groups", "dropped before the agent exists", "rights",
			"Umask 0022\nUid 1000 1000 1000 1000\nGid 1000 1000 1000 1000\nGroups 1000\nCapInh " + none + "\nCapPrm " + none + "\nCapEff " + none +
				"\nCapBnd " + none + "\nCapAmb " + none + "\nNoNewPrivs 1\nSeccomp 2",
		},
	} {
		l.entry(t, "host", e.attack, e.protection, func(t *testing.T, _ func(string)) {
			if diff := cmp.Diff(e.want, strict.answers[e.step].Detail); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if loose.answers[e.step].Detail == e.want {
				t.Error("it is the same without the protection: the entry proves nothing")
			}
		})
	}
	l.entry(t, "host", "ignored or blocked signals", "exec with the defaults", func(t *testing.T, _ func(string)) {
		want := "SigPnd " + none + "\nShdPnd " + none + "\nSigBlk " + none + "\nSigIgn " + none
		if diff := cmp.Diff(want, strict.answers["signals"].Detail); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if diff := cmp.Diff(want, started.answers["signals"].Detail); diff != "" {
			t.Errorf("started with a signal ignored: -want +got:\n%s", diff)
		}
		// An engine can have been started with others ignored, and hands them down.
		got := loose.answers["signals"].Detail
		_, ignored, _ := strings.Cut(got, "SigIgn ")
		if mask, err := strconv.ParseUint(ignored, 16, 64); err != nil || mask&1 == 0 {
			t.Errorf("without the protection: %q, which has to ignore SIGHUP: the entry proves nothing", got)
		}
	})
	l.entry(t, "host", "the host's terminal", "a session of its own, planned mounts alone", func(t *testing.T, _ func(string)) {
		if got := strict.answers["terminal"]; got.Answer != "ENXIO" {
			t.Errorf("/dev/tty: %s %s", got.Answer, got.Detail)
		}
		if out := l.withTerminal(t, look[3]); out["terminal"].Answer != "ok" {
			t.Errorf("the control, with a terminal: %+v", out["terminal"])
		}
		const node = "terminal, by its node"
		if held, open := strict.answers[node], loose.answers[node]; held.Answer != "ENOENT" || open.Answer != "ok" {
			t.Errorf("its node: %+v; with one that is mounted: %+v, which has to be ok", held, open)
		}
	})
}

// ignoringGuest is a directory with a guest that is started with SIGHUP ignored, as nohup(1) starts programs.
func (l *lab) ignoringGuest(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(l.dir, "ignoring")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copyProgram(t, filepath.Join(l.weak, "guest"), filepath.Join(dir, "weak"))
	script := "#!/bin/sh\ntrap '' HUP\nexec " + engine.GuestMount + "/weak \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "guest"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// hostTerminal is the node of a terminal of the host's.
func hostTerminal(t *testing.T) string {
	t.Helper()
	master, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(master.Close(), terminal.Close()) })
	return terminal.Name()
}

// withTerminal makes a step on the host, by a probe with a terminal of its own.
func (l *lab) withTerminal(t *testing.T, s step) map[string]answer {
	t.Helper()
	input := filepath.Join(t.TempDir(), "steps")
	if err := os.WriteFile(input, encode(t, []step{s}), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "script", "-qec", l.probe+" < "+input, "/dev/null").Output()
	if err != nil {
		t.Fatalf("script(1): %v", err)
	}
	return decodeAnswers(t, bytes.ReplaceAll(out, []byte("\r"), nil))
}

// canary is in the environment of the suite, and in no policy but one.
const canary = "ESCAPE_CANARY"

// hostNames are strings that tell about the host and its people.
func hostNames(t *testing.T, l *lab, project string) []string {
	t.Helper()
	all := []string{project, l.dir, filepath.Base(project), "the-canarys-value"}
	if name, err := os.Hostname(); err == nil && len(name) > 3 { // "vm" is part of too many words
		all = append(all, name)
	}
	if u, err := user.Current(); err == nil && u.Username != "root" {
		all = append(all, u.Username, u.HomeDir)
	}
	return all
}

// TestEscapeHostNames: nothing inside tells where on the host the project is, whose it is, or what the host is called.
func TestEscapeHostNames(t *testing.T) {
	t.Setenv(canary, "the-canarys-value")
	l := testLab(t)
	files := []string{
		"/proc/self/mountinfo", "/proc/self/mounts", "/proc/self/mountstats", "/proc/self/environ", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/passwd",
		"/etc/group", "/proc/self/cgroup", "/proc/sys/kernel/hostname", "/proc/self/cmdline", "/proc/1/cmdline", "/proc/1/cgroup",
	}
	var look []step
	for _, f := range files {
		look = append(look, step{f, "read", []string{f}})
	}
	owned := func(t *testing.T, project string) {
		if err := os.Chown(project, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	for _, in := range []struct {
		name string
		setup
	}{
		{"a project of root's", setup{}},
		{"a project of a user's", setup{prepare: owned}},
		{"a copy", setup{policy: "workspace: {mode: copy}\n"}},
	} {
		l.entry(t, "host", "names of the host, in "+in.name, "mounts by descriptor, an environment of its own", func(t *testing.T, _ func(string)) {
			if found := leaks(t, l, l.try(t, in.setup, look), files); len(found) > 0 {
				t.Errorf("told by %q", found)
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		b := l.try(t, setup{policy: "workspace: {mode: bind}\nenv: [" + canary + "]\n"}, look)
		if found := leaks(t, l, b, files); !slices.Contains(found, "/proc/self/mountinfo") || !slices.Contains(found, "/proc/self/environ") {
			t.Errorf("a bound project and a passed variable are found in %q alone: the entries prove nothing", found)
		}
	})
}

// leaks are the files that have one of the host's names in them.
func leaks(t *testing.T, l *lab, b *box, files []string) (found []string) {
	t.Helper()
	for _, f := range files {
		a := b.answers[f]
		if a.Answer != "ok" && f != "/proc/1/cgroup" && f != "/proc/self/mountstats" {
			t.Errorf("%s: %s %s", f, a.Answer, a.Detail)
		}
		for _, name := range hostNames(t, l, b.project) {
			if strings.Contains(a.Detail, name) {
				found = append(found, f)
				break
			}
		}
	}
	return found
}

// TestEscapeMountTable lists what the mount table shows, all of which is the engine's or ours.
func TestEscapeMountTable(t *testing.T) {
	l := testLab(t)
	l.entry(t, "host", "an unplanned mount", "the mount table is compared with the plan", func(t *testing.T, _ func(string)) {
		b := l.try(t, setup{}, []step{{"mounts", "read", []string{"/proc/self/mountinfo"}}})
		for line := range strings.Lines(b.answers["mounts"].Detail) {
			f := strings.Fields(line)
			root, target := f[3], f[4]
			// Known: the engine's own directories, which are the same for everybody.
			engines := strings.HasPrefix(root, filepath.Join(l.facts.Root, "volumes/agent-sandbox-guest-")) || strings.HasPrefix(root, filepath.Join(l.facts.Root, "containers/"))
			kernels := root == "/" || strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "/sys/")
			// The lane's directory is in no file system any more, and was in a path that is the same on every host.
			lanes := target == link.LaneDir && strings.HasPrefix(root, "/agent-sandbox-") && strings.HasSuffix(root, "/lane//deleted")
			if !engines && !kernels && !lanes && !strings.Contains(root, "/volumes/") && !strings.Contains(root, "/containers/") {
				t.Errorf("%s is mounted at %s", root, target)
			}
		}
		more := engine.Weakened{Mounts: []engine.Mount{{Source: l.weak, Target: "/unplanned", ReadOnly: true}}}
		refused := l.try(t, setup{seam: seam{container: more}}, nil)
		if refused.err == nil || !strings.Contains(refused.err.Error(), "/unplanned") {
			t.Errorf("with another mount: %v", refused.err)
		}
		off := l.try(t, weak("", "", nil, more), []step{{"look", "open", []string{"/unplanned/guest", "r"}}})
		if got := off.answers["look"]; got.Answer != "ok" {
			t.Errorf("without the comparison: %+v: the entry proves nothing", got)
		}
	})
}

// TestEscapeSetuid: a setuid program of root's does not give root.
func TestEscapeSetuid(t *testing.T) {
	l := testLab(t)
	l.entry(t, "host", "a setuid program of root's", "no_new_privs", func(t *testing.T, skip func(string)) {
		if !l.facts.Local || l.facts.UserNS {
			skip("the overlay that shows such a file needs a local engine")
		}
		prepare := func(t *testing.T, project string) {
			program := filepath.Join(project, ".probe", "setuid")
			copyProgram(t, l.probe, program)
			// The project is root's and shown as the agent's, and the other way round.
			if err := os.Chown(program, 1000, 1000); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(program, 0o755|os.ModeSetuid); err != nil {
				t.Fatal(err)
			}
		}
		look := []step{{"run", "exec", []string{"/workspace/.probe/setuid", "-step", `{"op":"ids"}`}}, {"file", "stat", []string{"/workspace/.probe/setuid"}}}
		b := l.try(t, setup{prepare: prepare}, look)
		if got := b.answers["file"].Detail; !strings.HasPrefix(got, "mode 104755 uid 0") {
			t.Fatalf("the file is %q: the entry proves nothing", got)
		}
		if got := b.answers["run"].Detail; !strings.Contains(got, "uid 1000 1000 1000") {
			t.Errorf("ids: %s", got)
		}
		off := weak("", "", []string{"no_new_privs"}, engine.Weakened{NewPrivileges: true, Unconfined: true})
		off.prepare = prepare
		if got := l.try(t, off, look).answers["run"].Detail; !strings.Contains(got, "uid 1000 0 0") {
			t.Errorf("without the protection: %s: the entry proves nothing", got)
		}
	})
}

// TestEscapeSystemCalls makes, in a sandbox as people run it, the system calls that the filter is there for.
func TestEscapeSystemCalls(t *testing.T) {
	l := testLab(t)
	var strict, loose map[string]call
	l.entry(t, "host", "system calls that the filter denies", "seccomp", func(t *testing.T, _ func(string)) {
		prepare := func(t *testing.T, project string) {
			copyProgram(t, l.calls, filepath.Join(project, ".probe", "sysprobe"))
		}
		try := func(s setup) map[string]call {
			s.prepare = prepare
			b := l.start(t, s, []string{"/workspace/.probe/sysprobe", "all"}, nil)
			if b.err != nil {
				t.Fatalf("%v\n%s", b.err, b.stderr)
			}
			return decodeCalls(t, b.stdout)
		}
		strict, loose = try(setup{}), try(weak("", "user: root\n", []string{"capabilities"}, engine.Weakened{Unconfined: true, Capabilities: true}))
		changed := 0
		for name, c := range strict {
			if !slices.Contains(c.Strict, c.Errno) {
				t.Errorf("%s: %s %s, want one of %q", name, c.Errno, c.Detail, c.Strict)
			}
			if loose[name].Errno != c.Errno {
				changed++
			}
		}
		if len(strict) < 100 || changed < 60 {
			t.Errorf("%d of %d calls have another answer without the filter: the entry proves nothing", changed, len(strict))
		}
	})
	for attack, name := range map[string]string{"keyctl": "keyctl", "io_uring": "io_uring_setup"} {
		l.entry(t, "host", attack, "seccomp", func(t *testing.T, skip func(string)) {
			held, open := strict[name], loose[name]
			if open.Errno == "ENOSYS" || attack == "io_uring" && open.Errno == "EPERM" { // io_uring_disabled in sysctl/kernel.rst
				skip("this kernel lets nobody use it: " + open.Errno)
			}
			if !slices.Contains(held.Strict, held.Errno) || held.Errno == open.Errno {
				t.Errorf("with the filter %q, without %q: the entry proves nothing", held.Errno, open.Errno)
			}
		})
	}
}

// call is a line of sysprobe's output; see there.
type call struct {
	Name   string
	Strict []string
	Errno  string
	Detail string
}

func decodeCalls(t *testing.T, out []byte) map[string]call {
	t.Helper()
	all := map[string]call{}
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		var c call
		if err := json.Unmarshal(s.Bytes(), &c); err != nil {
			t.Fatalf("sysprobe printed %q: %v", s.Bytes(), err)
		}
		all[c.Name] = c
	}
	return all
}

// TestEscapeForgedFrames: bytes that look like the guest's are the agent's output, and nothing else.
func TestEscapeForgedFrames(t *testing.T) {
	l := testLab(t)
	l.entry(t, "host", "frames of the guest's in the agent's output", "the agent's output is in a stream of the link", func(t *testing.T, _ func(string)) {
		frame := `{"exit":{"code":0,"oom_kills":0,"peak_memory":0,"cpu_micros":0}}`
		forged := "\x01\x00\x00\x00\x00\x00\x00\x0c" + // the engine's header of a piece of standard output
			"\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x44" + // yamux: data for stream 1, the control stream
			"\x00\x00\x00\x40" + frame
		b := l.start(t, setup{}, []string{"sh", "-c", `cat; exit 7`}, []byte(forged))
		if string(b.stdout) != forged || b.result.ExitCode != 7 {
			t.Errorf("exit %d, output %q", b.result.ExitCode, b.stdout)
		}
		off := weak("", "", []string{"streams"}, engine.Weakened{})
		o := l.start(t, off, []string{"sh", "-c", `cat; exit 7`}, []byte(forged))
		if o.err == nil && o.result.ExitCode == 7 && string(o.stdout) == forged {
			t.Error("the guest's own output does the same: the entry proves nothing")
		}
		if f := o.finished(); f.Outcome == event.Success {
			t.Errorf("a forged frame made a success of it: %+v", f)
		}
	})
}
