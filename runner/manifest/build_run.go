package manifest

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/runner/event"
)

// plan is what a statement tells of plan.json.
type plan struct {
	TTY   bool `json:"tty"`
	Agent struct {
		User string `json:"user"`
		UID  int    `json:"uid"`
		GID  int    `json:"gid"`
	} `json:"agent"`
	Env       []Variable `json:"env"`
	Workspace struct {
		Mode string `json:"mode"`
	} `json:"workspace"`
	Network struct {
		Mode    string `json:"mode"`
		Capture bool   `json:"capture"`
		Found   []struct {
			Bundle string `json:"bundle"`
			Host   string `json:"host"`
			Port   uint16 `json:"port"`
			Source string `json:"source"`
		} `json:"found"`
	} `json:"network"`
	Seccomp struct {
		Profile string `json:"profile"`
		Digest  string `json:"digest"`
	} `json:"seccomp"`
	Container struct {
		Guest struct {
			Digest string `json:"digest"`
		} `json:"guest"`
		Mounts []struct {
			Target   string `json:"target"`
			Volume   bool   `json:"volume"`
			Tmpfs    bool   `json:"tmpfs"`
			ReadOnly bool   `json:"read_only"`
		} `json:"mounts"`
		Tmpfs []struct {
			Target string `json:"target"`
		} `json:"tmpfs"`
		Limits struct {
			Memory int64   `json:"memory"`
			CPUs   float64 `json:"cpus"`
			PIDs   int64   `json:"pids"`
		} `json:"limits"`
	} `json:"container"`
	Policy struct {
		Compiled json.RawMessage `json:"compiled"`
	} `json:"policy"`
	Caches []Cache `json:"caches"`
	Kit    *struct {
		Version string `json:"version"`
	} `json:"kit"`
}

func (b *builder) isolation() {
	i := &b.p.Isolation
	i.Probes, i.Lowered, i.LoweredCount = []Probe{}, []Lowered{}, b.s.Counts.Lowered
	for _, l := range b.s.Lowered {
		i.Lowered = append(i.Lowered, Lowered{What: b.text("isolation.lowered", l.What), Why: b.text("isolation.lowered", l.Why)})
	}
	if b.plan == nil {
		b.missing("isolation.planned", "the run ended before there was a plan")
	} else {
		i.Planned = b.planned()
	}
	m := b.s.Measured
	if m == nil {
		b.missing("isolation.measured", "the run ended before the sandbox was measured")
		return
	}
	// The runner lets the agent go only if what was measured is what was planned.
	i.Verified = b.agentRan()
	i.Measured = b.measured(m)
	i.Probes = b.probes(m)
}

func (b *builder) planned() *Planned {
	p := b.plan
	out := &Planned{
		SHA256: b.sum, User: b.text("isolation.planned.user", p.Agent.User), UID: p.Agent.UID, GID: p.Agent.GID,
		Seccomp: p.Seccomp.Profile, SeccompSHA256: strings.TrimPrefix(p.Seccomp.Digest, "sha256:"), Network: p.Network.Mode, Capture: p.Network.Capture,
		Workspace: p.Workspace.Mode, Mounts: []Mount{}, Env: []Variable{},
	}
	for _, m := range p.Container.Mounts {
		kind := "bind"
		switch {
		case m.Tmpfs:
			kind = "tmpfs"
		case m.Volume:
			kind = "volume"
		}
		out.Mounts = append(out.Mounts, Mount{Target: m.Target, Kind: kind, ReadOnly: m.ReadOnly})
	}
	for _, t := range p.Container.Tmpfs {
		out.Mounts = append(out.Mounts, Mount{Target: t.Target, Kind: "tmpfs"})
	}
	slices.SortFunc(out.Mounts, func(x, y Mount) int { return cmp.Compare(x.Target, y.Target) })
	out.Mounts = bounded(b, "isolation.planned.mounts", out.Mounts, 200)
	for i, m := range out.Mounts {
		out.Mounts[i].Target = b.text("isolation.planned.mounts", m.Target)
	}
	for _, c := range bounded(b, "isolation.planned.caches", p.Caches, 20) {
		text := func(s string) string { return b.text("isolation.planned.caches", s) }
		out.Caches = append(out.Caches, Cache{Kind: text(c.Kind), Volume: text(c.Volume), Target: text(c.Target), New: c.New})
	}
	slices.SortFunc(out.Caches, func(x, y Cache) int { return cmp.Compare(x.Kind, y.Kind) })
	env := slices.SortedFunc(slices.Values(p.Env), func(x, y Variable) int { return cmp.Compare(x.Name, y.Name) })
	for _, v := range bounded(b, "isolation.planned.env", env, 300) {
		out.Env = append(out.Env, Variable{Name: b.text("isolation.planned.env", v.Name), Source: v.Source})
	}
	return out
}

// bounded is at most limit items.
func bounded[T any](b *builder, field string, list []T, limit int) []T {
	if len(list) <= limit {
		return list
	}
	b.p.Clipped = append(b.p.Clipped, field)
	return list[:limit]
}

func (b *builder) measured(m *event.GuestMeasured) *Measured {
	process := func(p event.Process) Process {
		return Process{
			UID: p.UID[:], GID: p.GID[:], Groups: append([]int{}, p.Groups...),
			Capabilities: []string{p.CapInh, p.CapPrm, p.CapEff, p.CapBnd, p.CapAmb}, NoNewPrivs: p.NoNewPrivs, Seccomp: p.Seccomp,
		}
	}
	out := &Measured{
		Agent: process(m.Agent), Guest: process(m.Guest), Namespaces: b.texts("isolation.measured.namespaces", ownNamespaces(m.Namespaces)),
		Mounts: m.Mounts, Interfaces: b.texts("isolation.measured.interfaces", slices.Sorted(slices.Values(m.Interfaces))),
		CgroupMemory: m.Cgroup.MemoryBytes, CgroupPIDs: m.Cgroup.PIDs, CgroupCPUMicros: m.Cgroup.CPUMicros, Kernel: b.text("isolation.measured.kernel", m.Kernel),
	}
	if m.Trust != nil {
		out.TrustedCertificates = m.Trust.Certificates
	}
	return out
}

// ownNamespaces leaves out the kernel's first ones, which are the host's: their numbers are fixed
// (https://github.com/torvalds/linux/blob/master/include/linux/proc_ns.h). Those of net and mnt are since Linux 6.18 alone, and the plan
// gives each sandbox its own.
func ownNamespaces(all map[string]string) []string {
	first := []string{
		"ipc:[4026531839]", "uts:[4026531838]", "user:[4026531837]", "pid:[4026531836]", "cgroup:[4026531835]", "time:[4026531834]",
		"net:[4026531833]", "mnt:[4026531832]",
	}
	var own []string
	for name, link := range all {
		if !slices.Contains(first, link) {
			own = append(own, name)
		}
	}
	slices.Sort(own)
	return own
}

// The controls of a probe.
const (
	positive = "positive"
	negative = "negative"
)

// probes are what the guest tried. A capture that works is its own positive control: a dial to somewhere else arrived, and
// where it arrived was the relay.
func (b *builder) probes(m *event.GuestMeasured) []Probe {
	probe := func(name, control string, held bool, detail string) Probe {
		if held {
			detail = ""
		}
		return Probe{Name: name, Control: control, Held: held, Detail: b.text("isolation.probes", detail)}
	}
	why := strings.Join(m.Network.Reasons, "; ")
	noCaps := func(p event.Process) bool {
		return strings.Trim(p.CapInh+p.CapPrm+p.CapEff+p.CapBnd+p.CapAmb, "0") == "" && p.CapEff != ""
	}
	control := func(name, of string) Probe {
		return probe(name, positive, slices.Contains(m.Isolation.Control, of), "it does not, and so the negative one proves nothing")
	}
	all := []Probe{
		probe("the agent's process reaches the guest", negative, len(m.Isolation.Reach) == 0, strings.Join(m.Isolation.Reach, ", ")),
		control("the agent's process reaches itself in the same ways", "reach"),
		probe("the agent's process opens files that change the kernel", negative, len(m.Isolation.Exposed) == 0, strings.Join(m.Isolation.Exposed, ", ")),
		control("the agent's process opens a file of its own in /proc in the same way", "exposed"),
		probe("a system call is denied that the strict filter alone denies", negative, m.Isolation.StrictCalls, "the call was let through"),
		control("a system call of the same kind is let through", "strict_calls"),
		probe("the guest can be traced by its own user", negative, !m.Isolation.GuestDumpable, "it can"),
		probe("the agent's process has capabilities", negative, noCaps(m.Agent), "it has"),
	}
	if m.Network.Listeners {
		return append(all, probe("an allowed name leads to a listener, and a dial elsewhere fails", positive, true, ""))
	}
	return append(
		all,
		probe("a dial to an address elsewhere arrives at the relay", positive, m.Network.TCP, why),
		probe("an IPv6 dial to an address elsewhere arrives at the relay", positive, m.Network.IPv6, why),
		probe("a refused datagram is reported", positive, m.Network.Datagrams, why),
	)
}

func (b *builder) workspace() {
	c := b.s.Changes
	if c == nil {
		if b.agentRan() {
			b.missing("workspace", "what the agent changed was not read back")
		}
		return
	}
	w := &Workspace{
		Added: c.Added, Modified: c.Modified, Deleted: c.Deleted, Renamed: c.Renamed, ModeOnly: c.Mode, Git: c.Git, Bytes: c.Bytes,
		ProtectedReject: c.Reject, ProtectedWarn: c.Warn, Protected: []Protected{}, Outputs: []Output{}, ChangesSHA256: c.Digest, PatchSHA256: c.Patch,
	}
	if b.s.Plan != nil {
		w.Mode = b.s.Plan.Mode
	}
	if w.Tree = b.text("workspace.tree", c.Tree); c.TreeDetail != "" {
		b.missing("workspace.tree", b.text("missing", c.TreeDetail))
	}
	for _, f := range b.s.Files {
		w.Outputs = append(w.Outputs, Output{Name: b.text("workspace.outputs", f.Name), Path: b.text("workspace.outputs", f.Path), SHA256: f.SHA256, Bytes: f.Bytes})
		if f.SHA256 == "" {
			b.missing("workspace.outputs."+b.text("missing", f.Name), b.text("missing", f.Detail))
		}
	}
	slices.SortFunc(w.Outputs, func(x, y Output) int { return cmp.Compare(x.Name, y.Name) })
	for _, p := range b.s.Protected {
		w.Protected = append(w.Protected, Protected{Path: b.text("workspace.protected", p.Path), Tier: p.Tier, Reason: b.text("workspace.protected", p.Reason)})
	}
	if r := b.s.Recovered; r != nil {
		w.Recovered = &r.Time
	}
	slices.SortFunc(w.Protected, func(x, y Protected) int { return cmp.Compare(x.Path, y.Path) })
	b.p.Workspace = w
}

func (b *builder) resources() {
	r := &b.p.Resources
	r.BytesOut = b.s.Counts.Up
	if b.plan != nil {
		l := b.plan.Container.Limits
		r.MemoryLimit, r.CPULimit, r.PIDsLimit = l.Memory, l.CPUs, l.PIDs
	}
	a := b.s.Agent
	seen := func(field string, n int64) *int64 {
		switch {
		case n >= 0:
			return &n
		case a.Silent:
			b.missing(field, "the sandbox ended before the guest could say it")
		default:
			b.missing(field, "the engine does not let it be seen from inside")
		}
		return nil
	}
	switch {
	case a == nil && b.agentRan():
		for _, field := range []string{"peak_memory", "cpu_micros", "peak_pids", "oom_kills"} {
			b.missing("resources."+field, "the record has no end of the agent")
		}
	case a != nil:
		r.PeakMemory, r.CPUMicros = seen("resources.peak_memory", a.PeakMemory), seen("resources.cpu_micros", a.CPUMicros)
		r.PeakPIDs, r.OOMKills = seen("resources.peak_pids", a.PeakPIDs), seen("resources.oom_kills", a.OOMKills)
	}
}

// logs takes the digests that were made while the logs were written. Those of a run whose runner died are made from the files.
func (b *builder) logs() {
	for _, stream := range []string{"stderr", "stdout"} {
		i := slices.IndexFunc(b.s.Outputs, func(o event.OutputKept) bool { return o.Stream == stream })
		if i >= 0 {
			o := b.s.Outputs[i]
			b.p.Logs = append(b.p.Logs, Log{Stream: stream, SHA256: o.SHA256, Bytes: o.Bytes, Lost: o.Lost, Redactions: b.redactions(stream)})
			continue
		}
		sum, size, err := b.digest(stream + ".log")
		switch {
		case err == nil:
			b.p.Logs = append(b.p.Logs, Log{Stream: stream, SHA256: sum, Bytes: size, Redactions: b.redactions(stream)})
			b.missing("logs."+stream, "the runner died: the digest is that of the file as it was found")
		case !errors.Is(err, fs.ErrNotExist):
			b.missing("logs."+stream, b.text("missing", err.Error()))
		case b.agentRan():
			b.missing("logs."+stream, "there is no file")
		}
	}
}

// redactions is how many secrets were taken out of a stream.
func (b *builder) redactions(stream string) (n uint64) {
	for _, r := range b.s.Redacted {
		if r.Where == stream {
			n += r.Count
		}
	}
	return n
}

func (b *builder) events() {
	e := Events{State: string(event.LogComplete), Dropped: map[string]uint64{}}
	if l := b.s.Log; l != nil {
		e.Head, e.Count, e.State, e.Detail = l.Head.Hash, l.Head.Count, string(l.State), b.text("events.detail", l.Detail)
	} else {
		genesis := event.Genesis(b.s.Run)
		e.Head = genesis.Hash
		b.missing("events", "there is no log of the run")
	}
	for _, d := range b.s.Dropped {
		e.Dropped[b.text("events.dropped", d.Dropped)] = d.Count
	}
	b.p.Events = e
}

func (b *builder) warnings() {
	var list []string
	for _, w := range b.s.Warnings {
		list = append(list, w.Message)
	}
	b.p.Warnings = Warnings{Messages: b.texts("warnings.messages", list), Count: b.s.Counts.Warnings}
}
