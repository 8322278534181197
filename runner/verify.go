package runner

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// separate are the namespaces that the sandbox must not share with the runner (namespaces(7)).
func separate() []string { return []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"} }

// fallbackInterfaces appear in every new network namespace once a tunnel module is loaded
// (net.core.fb_tunnels_only_for_init_net in the kernel's sysctl/net.rst). They are down and lead nowhere.
func fallbackInterfaces() []string {
	return []string{"tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip6gre0", "ip_vti0", "ip6_vti0"}
}

// verify compares what was measured with the plan. Every difference is in the error, since one alone may not tell
// what is wrong with an engine. own are the runner's namespaces where they can be compared.
func verify(p *Plan, m *link.Measurement, own map[string]string) error {
	var wrong []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	checkProcess(check, "agent", m.Agent)
	checkProcess(check, "guest", m.Guest)
	uid, gid := p.Agent.UID, p.Agent.GID
	check(m.Agent.UID == [4]int{uid, uid, uid, uid}, "the agent has the user ids %v, not %d", m.Agent.UID, uid)
	check(m.Agent.GID == [4]int{gid, gid, gid, gid}, "the agent has the group ids %v, not %d", m.Agent.GID, gid)
	for _, g := range m.Agent.Groups {
		check(g == gid, "the agent is in group %d", g)
	}
	check(m.Guest.UID[0] != uid && m.Guest.UID[2] != uid, "the agent could signal the guest: user ids %v", m.Guest.UID)
	for _, ns := range separate() {
		check(m.Namespaces[ns] != "", "the %s namespace can't be seen", ns)
		check(own[ns] == "" || m.Namespaces[ns] != own[ns], "the sandbox is in the host's %s namespace", ns)
	}
	for _, name := range m.Interfaces {
		check(name == "lo" || slices.Contains(fallbackInterfaces(), name), "there is a network interface %q", name)
	}
	checkNetwork(check, p, m.Network)
	check(p.trust == nil || m.Trust != nil && m.Trust.Certificates > 0, "the run's certificate is not trusted inside")
	checkIsolation(check, p, m.Isolation)
	checkLimits(check, p.Container.Limits, m.Cgroup)
	checkMounts(check, p, m.Mounts)
	if len(wrong) == 0 {
		return nil
	}
	return &RefusedError{
		Reason: "the sandbox is not what was planned: " + event.Printable(strings.Join(wrong, "; ")),
		Hint:   "the agent was not started; `agent-sandbox doctor` says what this engine lacks",
	}
}

// checkNetwork is about what becomes of dials. A plan without a fallback wants the capture.
func checkNetwork(check checker, p *Plan, n link.Network) {
	why := strings.Join(n.Reasons, ", ")
	if p.Network.Fallback == "" {
		check(n.Capture, "outgoing connections aren't captured: %s", why)
		return
	}
	check(n.Listeners && !n.Capture, "names don't lead to listeners, or not everything else fails: %s", why)
}

// checkIsolation looks at what the agent's process could do when it tried.
func checkIsolation(check checker, p *Plan, i link.Isolation) {
	check(len(i.Reach) == 0, "the agent reaches the guest: %s", strings.Join(i.Reach, ", "))
	check(!i.GuestDumpable, "the guest can be traced by its own user")
	check(len(i.Exposed) == 0, "the agent can change the kernel: %s", strings.Join(i.Exposed, ", "))
	check(i.StrictCalls || p.Seccomp.Profile != policy.SeccompStrict, "the system call filter is not the strict one")
	for _, control := range []string{link.ControlReach, link.ControlExposed, link.ControlStrictCalls} {
		check(slices.Contains(i.Control, control), "the agent can't do what it must be able to (%s), so that what it can't do proves nothing", control)
	}
	check(i.AgentOOM > i.GuestOOM, "the kernel would kill the guest before the agent (oom_score_adj %d and %d)", i.GuestOOM, i.AgentOOM)
}

type checker func(ok bool, format string, args ...any)

func checkProcess(check checker, who string, p link.Process) {
	for _, set := range []struct{ name, value string }{
		{"inheritable", p.CapInh}, {"permitted", p.CapPrm}, {"effective", p.CapEff}, {"bounding", p.CapBnd}, {"ambient", p.CapAmb},
	} {
		n, err := strconv.ParseUint(set.value, 16, 64)
		check(err == nil && n == 0, "the %s has capabilities in its %s set: %q", who, set.name, set.value)
	}
	check(p.NoNewPrivs, "the %s may gain privileges (no_new_privs is off)", who)
	const filter = 2
	check(p.Seccomp == filter, "the %s has no system call filter (mode %d)", who, p.Seccomp)
	check(p.Threads > 0, "the %s has no threads", who)
}

// checkLimits compares what can be seen of the limits; 0 means that it can't.
func checkLimits(check checker, want engine.Limits, have link.Limits) {
	const period = 100_000 // microseconds, the engine's
	pages := func(n int64) int64 { return n &^ 0xfff }
	check(have.MemoryBytes == 0 || have.MemoryBytes == pages(want.Memory), "the memory limit is %d bytes, not %d", have.MemoryBytes, want.Memory)
	check(have.PIDs == 0 || have.PIDs == want.PIDs, "the limit of processes is %d, not %d", have.PIDs, want.PIDs)
	quota := int64(want.CPUs * period)
	check(have.CPUMicros == 0 || have.CPUMicros == quota, "the CPU quota is %d us, not %d", have.CPUMicros, quota)
}

// checkMounts refuses a mount that is not planned and one that is writable where it must not be.
func checkMounts(check checker, p *Plan, mounts []link.Mount) {
	writable := plannedMounts(p)
	seen := map[string]bool{}
	readOnly := map[string]bool{}
	for _, m := range mounts {
		seen[m.Target], readOnly[m.Target] = true, m.ReadOnly
		// Anything else in its place would let the agent's changes reach the project.
		check(m.Target != WorkspaceTarget || p.Workspace.Mode != policy.ModeOverlay || m.Type == "overlay", "%s is no overlay but %s", m.Target, m.Type)
		rw, planned := writable[m.Target]
		switch {
		case planned:
			check(m.ReadOnly || rw, "%s is writable", m.Target)
		case kernelMount(m):
		default:
			check(false, "%s (%s) is mounted", m.Target, m.Type)
		}
	}
	for target := range writable {
		check(seen[target], "%s is not mounted", target)
	}
	for _, dir := range []string{"/proc/sys", "/sys"} {
		check(readOnly[dir], "%s is not mounted read-only", dir)
	}
}

// plannedMounts maps every mount point of the plan to whether it may be written to.
func plannedMounts(p *Plan) map[string]bool {
	planned := map[string]bool{
		"/": false, engine.GuestMount: false, "/dev/shm": true,
		"/etc/passwd": false, "/etc/group": false, "/etc/hosts": false, "/etc/hostname": false, "/etc/resolv.conf": false,
	}
	for _, t := range p.Container.Tmpfs {
		planned[t.Target] = true
	}
	for _, m := range p.Container.Mounts {
		planned[path.Clean(m.Target)] = !m.ReadOnly
	}
	return planned
}

// kernelMount recognises what every container has of the kernel's: views of it, and the masks over parts of them.
func kernelMount(m link.Mount) bool {
	below := func(dir string) bool { return m.Target == dir || strings.HasPrefix(m.Target, dir+"/") }
	switch m.Type {
	case "proc":
		return below("/proc")
	case "sysfs":
		return m.Target == "/sys" && m.ReadOnly
	case "cgroup", "cgroup2":
		return below("/sys/fs/cgroup") && m.ReadOnly
	case "devpts":
		return m.Target == "/dev/pts"
	case "mqueue":
		return m.Target == "/dev/mqueue"
	case "tmpfs":
		// /dev itself, the control groups' directory, and the masks: an empty directory or /dev/null over a file.
		return m.Target == "/dev" || m.Target == "/sys/fs/cgroup" || below("/proc") || below("/sys")
	default:
		return false
	}
}

// ownNamespaces are the runner's namespaces, none if the engine is elsewhere: their numbers could coincide.
func ownNamespaces(local bool) map[string]string {
	if !local {
		return nil
	}
	own := map[string]string{}
	for _, ns := range separate() {
		if target, err := os.Readlink("/proc/self/ns/" + ns); err == nil {
			own[ns] = target
		}
	}
	return own
}

// measured is the event of a measurement.
func measured(m *link.Measurement) event.GuestMeasured {
	mounts, _ := json.Marshal(m.Mounts) // a slice of plain structs always encodes
	sum := sha256.Sum256(mounts)
	return event.GuestMeasured{
		Agent: event.Process(m.Agent), Guest: event.Process(m.Guest), Namespaces: m.Namespaces,
		Mounts: len(m.Mounts), MountsDigest: hex.EncodeToString(sum[:]), Interfaces: m.Interfaces,
		Cgroup: event.CgroupLimits(m.Cgroup),
		Network: event.Capture{
			TCP: m.Network.Capture, Listeners: m.Network.Listeners, IPv6: m.Network.IPv6, Datagrams: m.Network.Datagrams, Reasons: m.Network.Reasons,
			Lane: m.Network.Lane,
		},
		Isolation: event.Isolation(m.Isolation), Trust: (*event.Trust)(m.Trust), Kernel: m.Kernel,
	}
}
