package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/link"
)

// verified is a plan and a measurement that agree.
func verified() (*Plan, *link.Measurement) {
	plan := &Plan{
		Agent:     Identity{User: "agent", UID: 1000, GID: 1000},
		Workspace: WorkspacePlan{Mode: policy.ModeOverlay, Target: WorkspaceTarget},
		Seccomp:   SeccompPlan{Profile: policy.SeccompStrict},
		Container: engine.Spec{
			Tmpfs: []engine.Tmpfs{{Target: "/tmp"}, {Target: "/run"}, {Target: "/home/agent"}},
			Mounts: []engine.Mount{
				{Target: "/workspace"},
				{Target: "/workspace/.git/hooks/", ReadOnly: true},
			},
			Limits: engine.Limits{Memory: 4<<30 + 17, CPUs: 1.5, PIDs: 512},
		},
	}
	const none = "0000000000000000"
	process := link.Process{
		CapInh: none, CapPrm: none, CapEff: none, CapBnd: none, CapAmb: none, NoNewPrivs: true, Seccomp: 2, Threads: 1,
	}
	agent, guest := process, process
	agent.UID, agent.GID, agent.Groups = [4]int{1000, 1000, 1000, 1000}, [4]int{1000, 1000, 1000, 1000}, []int{1000}
	guest.UID, guest.GID, guest.Threads = [4]int{64999, 1000, 64999, 1000}, [4]int{1000, 1000, 1000, 1000}, 16
	m := &link.Measurement{
		Agent: agent, Guest: guest, Namespaces: map[string]string{},
		Interfaces: []string{"lo", "sit0"},
		Cgroup:     link.Limits{Version: 2, MemoryBytes: 4 << 30, PIDs: 512, CPUMicros: 150_000},
		Network:    link.Network{Capture: true, IPv6: true, Datagrams: true},
		Isolation: link.Isolation{
			StrictCalls: true, AgentOOM: 500, Control: []string{link.ControlReach, link.ControlExposed, link.ControlStrictCalls},
		},
	}
	for _, ns := range separate() {
		m.Namespaces[ns] = ns + ":[4026532000]"
	}
	m.Mounts = []link.Mount{
		{Target: "/", Type: "overlay", ReadOnly: true},
		{Target: "/proc", Type: "proc"},
		{Target: "/proc/sys", Type: "proc", ReadOnly: true},
		{Target: "/proc/kcore", Type: "tmpfs"},
		{Target: "/dev", Type: "tmpfs"},
		{Target: "/dev/pts", Type: "devpts"},
		{Target: "/dev/mqueue", Type: "mqueue"},
		{Target: "/dev/shm", Type: "tmpfs"},
		{Target: "/sys", Type: "sysfs", ReadOnly: true},
		{Target: "/sys/fs/cgroup", Type: "cgroup2", ReadOnly: true},
		{Target: "/etc/resolv.conf", Type: "ext4", ReadOnly: true},
		{Target: "/etc/hostname", Type: "ext4", ReadOnly: true},
		{Target: "/etc/hosts", Type: "ext4", ReadOnly: true},
		{Target: "/etc/passwd", Type: "ext4", ReadOnly: true},
		{Target: "/etc/group", Type: "ext4", ReadOnly: true},
		{Target: engine.GuestMount, Type: "ext4", ReadOnly: true},
		{Target: "/tmp", Type: "tmpfs"},
		{Target: "/run", Type: "tmpfs"},
		{Target: "/home/agent", Type: "tmpfs"},
		{Target: "/workspace", Type: "overlay"},
		{Target: "/workspace/.git/hooks", Type: "ext4", ReadOnly: true},
	}
	return plan, m
}

// host are namespaces that the sandbox is not in.
func host() map[string]string {
	own := map[string]string{}
	for _, ns := range separate() {
		own[ns] = ns + ":[4026531000]"
	}
	return own
}

func TestVerifyAccepts(t *testing.T) {
	for name, alter := range map[string]func(*Plan, *link.Measurement){
		"as planned": func(*Plan, *link.Measurement) {},
		"the fallback without capture": func(p *Plan, m *link.Measurement) {
			p.Network.Fallback, m.Network = "no CAP_NET_ADMIN", link.Network{Listeners: true}
		},
		"limits that can't be seen":   func(_ *Plan, m *link.Measurement) { m.Cgroup = link.Limits{} },
		"no supplementary group":      func(_ *Plan, m *link.Measurement) { m.Agent.Groups = nil },
		"no interface but loopback":   func(_ *Plan, m *link.Measurement) { m.Interfaces = []string{"lo"} },
		"a read-only workspace":       func(_ *Plan, m *link.Measurement) { mountAt(m, "/workspace").ReadOnly = true },
		"datagrams are not reported":  func(_ *Plan, m *link.Measurement) { m.Network.Datagrams = false },
		"no IPv6":                     func(_ *Plan, m *link.Measurement) { m.Network.IPv6 = false },
		"the policy wants less":       func(p *Plan, m *link.Measurement) { p.Seccomp.Profile = "default"; m.Isolation.StrictCalls = false },
		"control groups of version 1": func(_ *Plan, m *link.Measurement) { mountAt(m, "/sys/fs/cgroup").Type = "tmpfs" },
		"root, as the policy says": func(p *Plan, m *link.Measurement) {
			p.Agent.UID, p.Agent.GID = 0, 0
			m.Agent.UID, m.Agent.GID, m.Agent.Groups = [4]int{}, [4]int{}, []int{0}
		},
	} {
		p, m := verified()
		alter(p, m)
		if err := verify(p, m, host()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mountAt(m *link.Measurement, target string) *link.Mount {
	for i := range m.Mounts {
		if m.Mounts[i].Target == target {
			return &m.Mounts[i]
		}
	}
	panic("bug: no mount at " + target)
}

// deviation is one difference between plan and measurement, and what the refusal must say about it.
type deviation struct {
	alter func(*Plan, *link.Measurement)
	want  string
}

// TestVerifyRefuses alters one thing at a time. Each alone must keep the agent from starting, and be named.
func TestVerifyRefuses(t *testing.T) {
	all := map[string]deviation{}
	for _, part := range []map[string]deviation{
		otherDeviations(), mountDeviations(), processDeviations("agent", func(m *link.Measurement) *link.Process { return &m.Agent }),
		processDeviations("guest", func(m *link.Measurement) *link.Process { return &m.Guest }), idDeviations(), namespaceDeviations(),
	} {
		maps.Copy(all, part)
	}
	_, m := verified()
	before, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		p, m := verified()
		all[name].alter(p, m)
		if after, _ := json.Marshal(m); string(after) == string(before) {
			t.Errorf("%s: the case alters nothing", name)
		}
		err := verify(p, m, host())
		if _, refused := errors.AsType[*RefusedError](err); !refused || !strings.Contains(err.Error(), all[name].want) {
			t.Errorf("%s: %v, want a refusal that says %q", name, err, all[name].want)
		}
	}
	t.Logf("%d deviations", len(all))
}

func otherDeviations() map[string]deviation {
	return map[string]deviation{
		"another group":     {func(_ *Plan, m *link.Measurement) { m.Agent.Groups = []int{1000, 999} }, "group 999"},
		"an interface":      {func(_ *Plan, m *link.Measurement) { m.Interfaces = append(m.Interfaces, "eth0") }, `"eth0"`},
		"no capture":        {func(_ *Plan, m *link.Measurement) { m.Network.Capture = false }, "captured"},
		"listeners instead": {func(_ *Plan, m *link.Measurement) { m.Network = link.Network{Listeners: true} }, "captured"},
		"no listeners": {func(p *Plan, m *link.Measurement) {
			p.Network.Fallback, m.Network = "no CAP_NET_ADMIN", link.Network{Reasons: []string{"port 53"}}
		}, "listeners, or not everything else fails: port 53"},
		"a capture that nobody counts on": {func(p *Plan, m *link.Measurement) {
			p.Network.Fallback, m.Network = "no CAP_NET_ADMIN", link.Network{Listeners: true, Capture: true}
		}, "listeners"},
		"a way to the guest":   {func(_ *Plan, m *link.Measurement) { m.Isolation.Reach = []string{"signal"} }, "signal"},
		"a traceable guest":    {func(_ *Plan, m *link.Measurement) { m.Isolation.GuestDumpable = true }, "traced"},
		"a writable kernel":    {func(_ *Plan, m *link.Measurement) { m.Isolation.Exposed = []string{"/proc/sysrq"} }, "/proc/sysrq"},
		"the default filter":   {func(_ *Plan, m *link.Measurement) { m.Isolation.StrictCalls = false }, "strict"},
		"no control of reach":  {func(_ *Plan, m *link.Measurement) { m.Isolation.Control = []string{"exposed", "strict_calls"} }, "(reach), so that"},
		"no control of files":  {func(_ *Plan, m *link.Measurement) { m.Isolation.Control = []string{"reach", "strict_calls"} }, "(exposed), so that"},
		"no control of calls":  {func(_ *Plan, m *link.Measurement) { m.Isolation.Control = []string{"reach", "exposed"} }, "(strict_calls), so that"},
		"the guest dies first": {func(_ *Plan, m *link.Measurement) { m.Isolation.GuestOOM = 500 }, "guest before the agent"},
		"more memory":          {func(_ *Plan, m *link.Measurement) { m.Cgroup.MemoryBytes += 4096 }, "memory"},
		"unlimited memory":     {func(_ *Plan, m *link.Measurement) { m.Cgroup.MemoryBytes = -1 }, "memory"},
		"unlimited processes":  {func(_ *Plan, m *link.Measurement) { m.Cgroup.PIDs = -1 }, "processes"},
		"unlimited CPU":        {func(_ *Plan, m *link.Measurement) { m.Cgroup.CPUMicros = -1 }, "CPU"},
		"more CPU":             {func(_ *Plan, m *link.Measurement) { m.Cgroup.CPUMicros++ }, "CPU"},
		"a mount more": {func(_ *Plan, m *link.Measurement) {
			m.Mounts = append(m.Mounts, link.Mount{Target: "/var/run/docker.sock", Type: "ext4", ReadOnly: true})
		}, "/var/run/docker.sock"},
		"a certificate that nobody trusts": {func(p *Plan, m *link.Measurement) { p.trust, m.Trust = &link.Trust{}, &link.Trusted{} }, "certificate is not trusted"},
		"a second mount on a planned place": {func(_ *Plan, m *link.Measurement) {
			m.Mounts = append(m.Mounts, link.Mount{Target: "/workspace/.git/hooks", Type: "ext4"})
		}, "/workspace/.git/hooks is writable"},
		"a file system of the kernel's elsewhere": {func(_ *Plan, m *link.Measurement) {
			m.Mounts = append(m.Mounts, link.Mount{Target: "/mnt/proc", Type: "proc", ReadOnly: true})
		}, "/mnt/proc"},
		"a writable sysfs":         {func(_ *Plan, m *link.Measurement) { mountAt(m, "/sys").ReadOnly = false }, "/sys"},
		"writable control groups":  {func(_ *Plan, m *link.Measurement) { mountAt(m, "/sys/fs/cgroup").ReadOnly = false }, "/sys/fs/cgroup"},
		"a writable /proc/sys":     {func(_ *Plan, m *link.Measurement) { mountAt(m, "/proc/sys").ReadOnly = false }, "/proc/sys"},
		"no overlay":               {func(_ *Plan, m *link.Measurement) { mountAt(m, "/workspace").Type = "ext4" }, "no overlay"},
		"a debugfs on top of proc": {func(_ *Plan, m *link.Measurement) { mountAt(m, "/proc/kcore").Type = "debugfs" }, "debugfs"},
	}
}

// processDeviations are those of one of the two processes.
func processDeviations(who string, of func(*link.Measurement) *link.Process) map[string]deviation {
	all := map[string]deviation{
		who + " without no_new_privs": {func(_ *Plan, m *link.Measurement) { of(m).NoNewPrivs = false }, "the " + who + " may gain privileges"},
		who + " without threads":      {func(_ *Plan, m *link.Measurement) { of(m).Threads = 0 }, "the " + who + " has no threads"},
	}
	for set, value := range map[string]func(*link.Process) *string{
		"inheritable": func(p *link.Process) *string { return &p.CapInh },
		"permitted":   func(p *link.Process) *string { return &p.CapPrm },
		"effective":   func(p *link.Process) *string { return &p.CapEff },
		"bounding":    func(p *link.Process) *string { return &p.CapBnd },
		"ambient":     func(p *link.Process) *string { return &p.CapAmb },
	} {
		for _, bad := range []string{"0000000000000001", "8000000000000000", "", "none", "-1", "10000000000000000"} {
			all[who+" with "+set+" capabilities "+bad] = deviation{
				func(_ *Plan, m *link.Measurement) { *value(of(m)) = bad },
				"the " + who + " has capabilities in its " + set + " set",
			}
		}
	}
	for _, mode := range []int{0, 1, 3} {
		all[fmt.Sprint(who, " with seccomp mode ", mode)] = deviation{
			func(_ *Plan, m *link.Measurement) { of(m).Seccomp = mode }, "the " + who + " has no system call filter",
		}
	}
	return all
}

func idDeviations() map[string]deviation {
	all := map[string]deviation{}
	for i := range 4 {
		all[fmt.Sprint("user id ", i)] = deviation{func(_ *Plan, m *link.Measurement) { m.Agent.UID[i] = 0 }, "user ids"}
		all[fmt.Sprint("group id ", i)] = deviation{func(_ *Plan, m *link.Measurement) { m.Agent.GID[i] = 0 }, "group ids"}
	}
	for _, i := range []int{0, 2} { // real and saved: what kill(2) looks at
		all[fmt.Sprint("guest with the agent's id ", i)] = deviation{
			func(_ *Plan, m *link.Measurement) { m.Guest.UID[i] = 1000 }, "could signal the guest",
		}
	}
	return all
}

func namespaceDeviations() map[string]deviation {
	all := map[string]deviation{}
	for _, ns := range separate() {
		all["unseen namespace "+ns] = deviation{
			func(_ *Plan, m *link.Measurement) { delete(m.Namespaces, ns) }, "the " + ns + " namespace",
		}
		all["shared namespace "+ns] = deviation{
			func(_ *Plan, m *link.Measurement) { m.Namespaces[ns] = host()[ns] }, "the host's " + ns + " namespace",
		}
	}
	return all
}

// mountDeviations take each planned mount away, and its protection.
func mountDeviations() map[string]deviation {
	all := map[string]deviation{}
	p, _ := verified()
	for target, writable := range plannedMounts(p) {
		all["no mount at "+target] = deviation{func(_ *Plan, m *link.Measurement) {
			m.Mounts = slices.DeleteFunc(m.Mounts, func(x link.Mount) bool { return x.Target == target })
		}, target + " is not mounted"}
		if !writable {
			all["writable "+target] = deviation{
				func(_ *Plan, m *link.Measurement) { mountAt(m, target).ReadOnly = false }, target + " is writable",
			}
		}
	}
	return all
}

// TestVerifyTellsAll: one deviation alone may not tell what is wrong with an engine.
func TestVerifyTellsAll(t *testing.T) {
	p, m := verified()
	m.Agent.NoNewPrivs, m.Network.Capture, m.Agent.Seccomp = false, false, 0
	m.Interfaces = append(m.Interfaces, "eth0\x1b[2J")
	err := verify(p, m, host())
	for _, want := range []string{"no_new_privs", "captured", "filter", `eth0\x1b[2J`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "\x1b") {
		t.Errorf("escape codes of the guest's are in %q", err)
	}
}

func TestOwnNamespaces(t *testing.T) {
	if own := ownNamespaces(false); own != nil {
		t.Errorf("a remote engine's namespaces would be compared with ours: %v", own)
	}
}
