//go:build docker

package runner

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// hostile is a sandbox whose guest is somebody else's. With an empty seam all is as it should be but that nobody compares what the guest
// has measured.
func (l *lab) hostile(t *testing.T, offence string, s seam) (*box, *world) {
	t.Helper()
	s.unchecked = true
	return l.hostileIn(t, offence, setup{seam: s})
}

func (l *lab) hostileIn(t *testing.T, offence string, s setup) (*box, *world) {
	t.Helper()
	s.policy, s.world = hostilePolicy, newWorld(t)
	s.seam.container.Guest = l.hostileGuest(t)
	return l.start(t, s, []string{offence}, nil), s.world
}

func ruleFor(t *testing.T, to string) policy.Rule {
	t.Helper()
	name, port, err := net.SplitHostPort(to)
	if addr, bad := netip.ParseAddr(name); bad == nil {
		name = addr.Unmap().String()
	}
	host, hostErr := policy.ParseTarget(name)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err := errors.Join(err, hostErr, portErr); err != nil {
		t.Fatal(err)
	}
	return policy.Rule{Host: host, Ports: []policy.PortRange{{First: uint16(n), Last: uint16(n)}}, TCP: true}
}

// hostileGuest is a directory with the program.
func (l *lab) hostileGuest(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(l.dir, "hostile")
	program := filepath.Join(dir, "guest")
	if _, err := os.Stat(program); err == nil {
		return dir
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./internal/hostileguest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

const hostilePolicy = "network: {allow: [{host: \"*.plain.example\", port: 80}]}\n"

// TestEscapeHostileGuest: a guest that is somebody else's gains nothing by what it says.
func TestEscapeHostileGuest(t *testing.T) {
	l := testLab(t)
	b, w := l.hostile(t, "network", seam{})
	if b.err != nil || b.result.ExitCode != 0 {
		t.Fatalf("exit %d, %v\n%s", b.result.ExitCode, b.err, b.stderr)
	}
	b.answers = decodeAnswers(t, b.stdout)
	targets := hostileTargets()
	// The policy of a file can't have all of these.
	open, openWorld := l.hostileIn(t, "network", setup{
		seam: seam{unchecked: true, egress: egress.Weakened{Names: true}},
		edit: func(p *policy.Policy) {
			p.Network.Allow[0].Ports = []policy.PortRange{{First: 80, Last: 80}, {First: 8443, Last: 8443}}
			for _, to := range append(slices.Collect(maps.Values(targets)), "denied.example:80") {
				p.Network.Allow = append(p.Network.Allow, ruleFor(t, to))
			}
		},
	})
	open.answers = decodeAnswers(t, open.stdout)
	for name, to := range targets {
		l.entry(t, "hostile guest", "connect: "+name, "the runner decides", func(t *testing.T, _ func(string)) {
			addr := netip.MustParseAddrPort(to)
			mark := "dialled " + netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()).String() + "\n"
			if got := b.answers[name]; got.Answer != "refused" || w.saw(mark) {
				t.Errorf("it was answered with %+v", got)
			}
			if !b.has(refusedConnection("tcp", addr)) {
				t.Error("it is not recorded")
			}
			checkHostileControls(t, b)
			if got := open.answers[name]; got.Answer != "ok" || !openWorld.saw(mark) {
				t.Errorf("where the policy has it: %+v: the entry proves nothing", got)
			}
		})
	}
	l.entry(t, "hostile guest", "connect: a name's address on another port", "the runner decides", func(t *testing.T, _ func(string)) {
		const name = "a name's address on another port"
		if got := b.answers[name]; got.Answer != "refused" || !b.has(refusedAt("c.plain.example")) {
			t.Errorf("it was answered with %+v", got)
		}
		if got := open.answers[name]; got.Answer != "ok" {
			t.Errorf("where the policy has it: %+v: the entry proves nothing", got)
		}
	})
	for _, name := range []string{"denied.example", "c.plain.example\x00.denied.example", "DENIED.example."} {
		l.entry(t, "hostile guest", "resolve: "+strconv.Quote(name), "the runner decides", func(t *testing.T, _ func(string)) {
			if got := b.answers["the name "+strconv.Quote(name)]; got.Answer != "refused" || w.saw("asked for "+strings.ToLower(name)) {
				t.Errorf("it was answered with %+v", got)
			}
			if !b.has(func(e event.Event) bool { _, ok := e.(event.NameRefused); return ok }) {
				t.Error("it is not recorded")
			}
			checkHostileControls(t, b)
			if got := open.answers["the name "+strconv.Quote(name)]; got.Answer != "ok" {
				t.Errorf("where the policy has it, and names end at a NUL: %+v: the entry proves nothing", got)
			}
		})
	}
	l.entry(t, "hostile guest", "data before the answer", "nothing is read of a connection that is refused", func(t *testing.T, _ func(string)) {
		if w.saw("mark-early") {
			t.Error("it arrived")
		}
		checkHostileControls(t, b)
		if !openWorld.saw("mark-early") {
			t.Error("where the policy has it, it does not arrive either: the entry proves nothing")
		}
	})
}

// hostileTargets are what the guest dials, by the names of its attempts.
func hostileTargets() map[string]string {
	return map[string]string{
		"an address": "8.8.8.8:443", "metadata": "169.254.169.254:80", "the host's loopback": "127.0.0.1:2375", "the host's loopback, IPv6": "[::1]:2375",
		"a mapped address": "[::ffff:10.0.0.9]:443", "an address with the claim of a name": "8.8.4.4:80", "an address with its own answer": "1.1.1.1:443",
		"an address with data before a yes": "9.9.9.9:80", "a synthetic address that has no name": "28.5.1.1:80",
	}
}

// checkHostileControls: what the policy has works, also after resets of streams that were somebody else's.
func checkHostileControls(t *testing.T, b *box) {
	t.Helper()
	if b.answers["control: a name"].Answer != "ok" || b.answers["control: a connection"].Answer != "ok" || !strings.Contains(b.answers["control: an answer"].Detail, "served") {
		t.Errorf("the positive control does not work: %+v", b.answers)
	}
}

// TestEscapeHostileGuestEnds: what no guest says ends the run with an error, and leaves nothing in the engine.
func TestEscapeHostileGuestEnds(t *testing.T) {
	l := testLab(t)
	control, _ := l.hostile(t, "nothing", seam{})
	frames := seam{link: link.Weakened{Frames: true}}
	// The true bound on what nobody reads would take seconds to be met.
	const little, much = 8 << 20, 1 << 30
	for _, o := range []struct {
		offence, by string
		with, off   seam
		ends        event.Outcome // without the protection
	}{
		{"exit before the start", "a measurement comes first", seam{}, seam{disorder: true}, event.Success},
		{"a huge frame", "messages are bounded", seam{}, frames, event.Success},
		{"nonsense", "messages are read strictly", seam{}, frames, event.Success},
		{"two messages in one frame", "messages are read strictly", seam{}, frames, event.Success},
		{"a status that a byte cuts to success", "an exit status is a byte", seam{}, frames, event.Failure},
		{"a message beyond its window", "the multiplexer's window", seam{}, seam{link: link.Weakened{Window: true}}, event.Success},
		{"more streams than there may be", "a limit of streams", seam{}, seam{link: link.Weakened{Streams: true}}, event.Success},
		{"pings without end", "a limit of pings", seam{}, seam{link: link.Weakened{Pings: true}}, event.Success},
		{"data that nobody reads", "a limit of what is unread", seam{link: link.Weakened{Unread: little}}, seam{link: link.Weakened{Unread: much}}, event.Success},
	} {
		l.entry(t, "hostile guest", o.offence, o.by, func(t *testing.T, _ func(string)) {
			b, _ := l.hostile(t, o.offence, o.with)
			if f := b.finished(); b.err == nil || f.Outcome != event.Errored || b.result.ExitCode != exitFailure {
				t.Errorf("the run ended with %v, %+v", b.err, f)
			}
			l.checkNothingLeft(t, b.result.Run)
			if control.err != nil || control.finished().Outcome != event.Success {
				t.Errorf("the control, a guest that says nothing wrong, ended with %v, %+v", control.err, control.finished())
			}
			if off, _ := l.hostile(t, o.offence, o.off); off.err != nil || off.finished().Outcome != o.ends {
				t.Errorf("without the protection the run ended with %v, %+v: the entry proves nothing", off.err, off.finished())
			}
		})
	}
	l.entry(t, "hostile guest", "a measurement of nothing", "the measurement is compared with the plan", func(t *testing.T, _ func(string)) {
		b, _ := l.hostileIn(t, "nothing", setup{})
		if f := b.finished(); b.err == nil || f.Outcome != event.Refused {
			t.Errorf("the run ended with %v, %+v", b.err, f)
		}
		l.checkNothingLeft(t, b.result.Run)
		if control.finished().Outcome != event.Success {
			t.Error("it is refused without the comparison as well: the entry proves nothing")
		}
	})
}

func (l *lab) checkNothingLeft(t *testing.T, run string) {
	t.Helper()
	e, err := engine.Connect(t.Context(), l.engine)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	left, err := e.Leftovers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range left {
		if o.Run == run {
			t.Errorf("left: %+v", o)
		}
	}
}

// maxGrowth is what the runner may hold because of a guest.
const maxGrowth = 400 << 20

// TestEscapeHostileGuestFloods: names, connections and data without end fill neither the runner's memory nor the record.
func TestEscapeHostileGuestFloods(t *testing.T) {
	l := testLab(t)
	l.entry(t, "hostile guest", "floods of names, connections and data", "limits on all of them", func(t *testing.T, _ func(string)) {
		stop := make(chan struct{})
		peak := make(chan uint64, 1)
		before := heapBytes()
		go func() {
			highest := uint64(0)
			for tick := time.NewTicker(10 * time.Millisecond); ; {
				select {
				case <-tick.C:
					highest = max(highest, heapBytes())
				case <-stop:
					tick.Stop()
					peak <- highest
					return
				}
			}
		}()
		start := time.Now()
		b, w := l.hostile(t, "floods", seam{})
		close(stop)
		highest := <-peak
		grown := highest - min(before, highest)
		t.Logf("%s, %d MiB", time.Since(start).Round(time.Millisecond), grown>>20)
		if b.err != nil || grown > maxGrowth {
			t.Errorf("the runner's memory grew by %d MiB; %v", grown>>20, b.err)
		}
		b.answers = decodeAnswers(t, b.stdout)
		if n := b.answers["names"].Answer; n != "2000" {
			t.Errorf("%s names were resolved", n)
		}
		if n := b.answers["dials"].Answer; n != "0" {
			t.Errorf("%s connections were allowed", n)
		}
		if w.saw("asked for") || w.saw("dialled") {
			t.Error("something reached the resolver or the network")
		}
		c := b.result.Summary.Counts
		if c.RefusedConnections != 500 || c.RefusedNames != 2000 {
			t.Errorf("counted: %+v", c)
		}
		// One for each that is listed, of connections and of names, and fewer for the rest.
		const most = 2*event.MaxTargets + 200
		off, _ := l.hostile(t, "floods", seam{listsAll: true})
		if len(b.events) > most || len(off.events) < 2*most {
			t.Errorf("the record has %d events, and %d without the bound: too many, or the entry proves nothing", len(b.events), len(off.events))
		}
	})
}

func heapBytes() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
