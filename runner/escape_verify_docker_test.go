//go:build docker

package runner

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
)

// TestEscapeRefused: a sandbox that lacks a protection is found out by what the guest measures in it, and the agent
// never starts.
func TestEscapeRefused(t *testing.T) {
	l := testLab(t)
	for _, tt := range []struct {
		lacks  string
		policy string
		guest  []string
		engine engine.Weakened
		want   string // in the reason
		skip   string
	}{
		{lacks: "a system call filter", engine: engine.Weakened{Unconfined: true}, want: "no system call filter"},
		{lacks: "the strict filter", engine: engine.Weakened{EngineFilter: true}, want: "the system call filter is not the strict one"},
		{lacks: "the drop of capabilities", guest: []string{"capabilities"}, want: "has capabilities in its bounding set"},
		{lacks: "the drop of capabilities, as root", policy: "user: root\n", guest: []string{"capabilities"}, want: "the agent has capabilities in its effective set"},
		{lacks: "no_new_privs", guest: []string{"no_new_privs"}, engine: engine.Weakened{NewPrivileges: true}, want: "may gain privileges"},
		{lacks: "the guest's own user", guest: []string{"guard"}, want: "the agent could signal the guest"},
		{lacks: "the guest's hiding", guest: []string{"hide"}, want: "the guest can be traced by its own user"},
		{lacks: "both", guest: []string{"guard", "hide"}, want: "the agent reaches the guest: signal, /proc/1/exe"},
		{lacks: "netfilter rules", guest: []string{"rules"}, want: "outgoing connections aren't captured: a dial to"},
		{lacks: "the right to capture", engine: engine.Weakened{NoNetAdmin: true}, want: "connections can't be captured: the engine grants no CAP_NET_ADMIN"},
		{lacks: "the whole capture", guest: []string{"capture"}, want: "outgoing connections aren't captured"},
		{lacks: "the agent's place in the line of victims", guest: []string{"oom"}, want: "would kill the guest before the agent"},
		{lacks: "a network namespace", guest: []string{"capture"}, engine: engine.Weakened{HostNetwork: true}, want: "the sandbox is in the host's net namespace", skip: l.otherNetwork(t)},
		{lacks: "an IPC namespace", engine: engine.Weakened{HostIPC: true}, want: "the sandbox is in the host's ipc namespace", skip: l.remote()},
		{lacks: "a read-only root", engine: engine.Weakened{WritableRoot: true}, want: "/ is writable"},
		{lacks: "a read-only guest", engine: engine.Weakened{WritableGuest: true}, want: engine.GuestMount + " is writable"},
		{lacks: "a read-only /proc/sys", engine: engine.Weakened{SystemPaths: true}, want: "/proc/sys is not mounted read-only"},
		{lacks: "the same, as root", policy: "user: root\n", engine: engine.Weakened{SystemPaths: true}, want: "the agent can change the kernel: /proc/sys/kernel/core_pattern"},
		{lacks: "limits", engine: engine.Weakened{Unlimited: true}, want: "the limit of processes is"},
		{lacks: "an overlay", engine: engine.Weakened{Mounts: []engine.Mount{{Source: l.dir, Target: WorkspaceTarget}}}, want: "/workspace is no overlay"},
		{lacks: "a plan for every mount", engine: engine.Weakened{Mounts: []engine.Mount{{Source: l.dir, Target: "/host", ReadOnly: true}}}, want: "/host ("},
	} {
		l.entry(t, "verify", "a sandbox without "+tt.lacks, "measured in the sandbox, compared with the plan", func(t *testing.T, skip func(string)) {
			if tt.skip != "" {
				skip(tt.skip)
			}
			b := l.start(t, setup{policy: tt.policy, guest: tt.guest, seam: seam{container: tt.engine}}, []string{"sh", "-c", "echo started"}, nil)
			var refused *RefusedError
			if !errors.As(b.err, &refused) || !strings.Contains(refused.Reason, tt.want) {
				t.Errorf("%v, want %q in it", b.err, tt.want)
			}
			if f := b.finished(); f.Outcome != event.Refused || f.ExitCode != exitFailure || !strings.Contains(f.Reason, tt.want) {
				t.Errorf("recorded as %+v", f)
			}
			if b.has(func(e event.Event) bool { _, ok := e.(event.AgentStarted); return ok }) || len(b.stdout) > 0 {
				t.Errorf("the agent ran: %q", b.stdout)
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		if b := l.start(t, setup{}, []string{"sh", "-c", "echo started"}, nil); b.err != nil || string(b.stdout) != "started\n" {
			t.Errorf("a sandbox with everything: %v, %q", b.err, b.stdout)
		}
	})
}

// otherNetwork says that the engine's network is not the runner's.
func (l *lab) otherNetwork(t *testing.T) string {
	t.Helper()
	if why := l.remote(); why != "" {
		return why
	}
	pid, err := peer(l.socket)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	if ours, err := os.Readlink("/proc/self/ns/net"); err != nil || ours != theirs {
		return "the engine has a network namespace of its own"
	}
	return ""
}

func (l *lab) remote() string {
	if l.facts.Local {
		return ""
	}
	return "the engine runs elsewhere, and its namespaces can't be compared with ours"
}
