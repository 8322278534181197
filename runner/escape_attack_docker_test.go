//go:build docker

package runner

import (
	"slices"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
)

// attack is an entry that one step of escapeprobe makes.
type attack struct {
	name    string
	op      string
	args    []string
	refused []string // the answers of a sandbox that holds
	by      string   // the protection
	control string   // the step of controls() that has to work in the same run

	// off is the setup without the protection, or "outside": the host itself. There the answer is one of leaks, "ok" if
	// there are none.
	off   string
	leaks []string

	// mark is what servers see of an attack that gets through, tells what it learns then; see runAllowed.
	mark, tells string

	// recorded finds the event that the attack leaves. Without it, it leaves none: a system call that the kernel
	// refuses is nobody's to see.
	recorded func(event.Event) bool
	// unrecorded: what leaving the protection out changes is that nobody sees the attack; its answer stays.
	unrecorded bool

	// strictOnly: only the strict filter stops it, so it is not tried where the policy asks for the engine's.
	strictOnly bool
	// userOnly: root may do it without any capability, and nothing comes of it.
	userOnly bool
	// skip says why it can't be tried here; "" if it can.
	skip string
}

// refusals is a readable list of answers.
func refusals(answers ...string) []string { return answers }

// baseline is a setup in which every attack has to fail, without anything left out: as people run it.
type baseline struct {
	setup
	// more are further answers that are right here.
	more []string
	// loose: the filter is the engine's.
	loose bool
	// root: the agent is root.
	root bool
}

// has tells whether the attack has to fail here.
func (b baseline) has(a attack) bool { return !(a.strictOnly && b.loose) && !(a.userOnly && b.root) }

func baselines() []baseline {
	return []baseline{
		{setup: setup{name: "default policy"}},
		// Root without capabilities passes other checks of the kernel than a user does, and fails at the read-only mounts.
		{setup: setup{name: "user: root", policy: "user: root\n"}, more: []string{"EROFS", "EPERM", "EACCES", "ENXIO"}, root: true},
		{setup: setup{name: "seccomp: default", policy: "seccomp: default\n"}, more: []string{"EPERM", "EACCES", "EINVAL", "ENOSYS"}, loose: true},
	}
}

// controls show that the sandbox lets a program do its work, and that the probe knows how.
func controls() []step {
	return []step{
		{"control: a file", "read", []string{"/etc/hostname"}},
		{"control: own child", "traceself", nil},
		{"control: a signal to a child", "killchild", nil},
		{"control: write", "write", []string{"/workspace/control", "x"}},
		{"control: a unix socket", "ownunix", []string{"/tmp/control.sock"}},
		{"control: loopback", "tcp", []string{"127.0.0.1:443"}},
		{"control: loopback udp", "udp", []string{"127.0.0.1:443"}},
		{"control: netlink", "list_links", nil},
		{"control: a device", "open", []string{"/dev/zero", "r"}},
		{"control: a proc file", "read", []string{"/proc/self/environ"}},
	}
}

// steps are those of the attacks that are tried in a setup, after the controls. What ends the network comes last.
func steps(attacks []attack, in func(attack) bool) []step {
	all := []step{{"the internet", "internet", []string{internetPorts}}}
	all = append(all, controls()...)
	for _, a := range attacks {
		if a.skip == "" && in(a) {
			all = append(all, step{a.name, a.op, a.args})
		}
	}
	return all
}

// run tries every attack in the baselines, and each one without its protection.
func (l *lab) run(t *testing.T, part string, attacks []attack, offs []setup) {
	for _, a := range attacks {
		l.entry(t, part, a.name, a.by, func(t *testing.T, skip func(string)) {
			if a.skip != "" {
				skip(a.skip)
			}
			for _, base := range baselines() {
				if !base.has(a) {
					continue
				}
				b := l.shared(t, base.prefixed(part), func() []step { return steps(attacks, base.has) })
				a.checkRefused(t, base, b)
			}
			a.checkOff(t, l, part, attacks, offs)
		})
	}
}

// prefixed gives the setups of one part boxes of their own.
func (b baseline) prefixed(part string) setup {
	s := b.setup
	s.name = part + ", " + s.name
	return s
}

func (a attack) checkRefused(t *testing.T, base baseline, b *box) {
	t.Helper()
	got, made := b.answers[a.name]
	if !made {
		t.Fatalf("%s: the probe did not get to it: %s", base.name, b.stderr)
	}
	if !slices.Contains(a.refused, got.Answer) && !slices.Contains(base.more, got.Answer) {
		t.Errorf("%s: %s %s, want one of %q", base.name, got.Answer, got.Detail, a.refused)
	}
	if c := b.answers[a.control]; a.control != "" && c.Answer != "ok" {
		t.Errorf("%s: the positive control does not work: %s: %s %s", base.name, a.control, c.Answer, c.Detail)
	}
	if a.recorded != nil && !b.has(a.recorded) {
		t.Errorf("%s: no event tells of it", base.name)
	}
}

// checkOff makes sure that the entry is worth something: without the protection the attack succeeds.
func (a attack) checkOff(t *testing.T, l *lab, part string, attacks []attack, offs []setup) {
	t.Helper()
	leaks := a.leaks
	if len(leaks) == 0 {
		leaks = []string{"ok"}
	}
	var got answer
	if a.off == "outside" {
		got = l.outside(t, []step{{a.name, a.op, a.args}})[a.name]
	} else {
		i := slices.IndexFunc(offs, func(s setup) bool { return s.name == a.off })
		if i < 0 {
			t.Fatalf("there is no setup %q", a.off)
		}
		s := offs[i]
		s.name = part + ", " + s.name
		b := l.shared(t, s, func() []step {
			return steps(attacks, func(o attack) bool { return o.off == a.off })
		})
		got = b.answers[a.name]
		if a.unrecorded {
			if b.has(a.recorded) {
				t.Errorf("without the protection (%s) it is still recorded, so the entry proves nothing", a.off)
			}
			return
		}
	}
	if !slices.Contains(leaks, got.Answer) {
		t.Errorf("without the protection (%s): %s %s, want one of %q: the entry proves nothing", a.off, got.Answer, got.Detail, leaks)
	}
}
