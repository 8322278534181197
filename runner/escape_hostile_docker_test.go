//go:build docker

package runner

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
)

// hostile is a sandbox whose guest is somebody else's.
func (l *lab) hostile(t *testing.T, policy, offence string, unchecked bool) (*box, *world) {
	t.Helper()
	w := newWorld(t)
	s := setup{policy: policy, world: w, seam: seam{unchecked: unchecked, container: engine.Weakened{Guest: l.hostileGuest(t)}}}
	return l.start(t, s, []string{offence}, nil), w
}

// hostileWith is one with another policy, and what the guest finds in the network then.
func (l *lab) hostileWith(t *testing.T, edit func(*policy.Policy)) (*box, *world) {
	t.Helper()
	w := newWorld(t)
	s := setup{policy: hostilePolicy, edit: edit, world: w, seam: seam{unchecked: true, container: engine.Weakened{Guest: l.hostileGuest(t)}}}
	return l.start(t, s, []string{"network"}, nil), w
}

func ruleFor(t *testing.T, to netip.AddrPort) policy.Rule {
	t.Helper()
	host, err := policy.ParseTarget(to.Addr().Unmap().String())
	if err != nil {
		t.Fatal(err)
	}
	return policy.Rule{Host: host, Ports: []policy.PortRange{{First: to.Port(), Last: to.Port()}}, TCP: true}
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
	b, w := l.hostile(t, hostilePolicy, "network", true)
	if b.err != nil || b.result.ExitCode != 0 {
		t.Fatalf("exit %d, %v\n%s", b.result.ExitCode, b.err, b.stderr)
	}
	b.answers = decodeAnswers(t, b.stdout)
	targets := hostileTargets()
	// The policy of a file can't have all of these.
	open, openWorld := l.hostileWith(t, func(p *policy.Policy) {
		p.Network.Allow[0].Ports = []policy.PortRange{{First: 80, Last: 80}, {First: 8443, Last: 8443}}
		for _, to := range targets {
			p.Network.Allow = append(p.Network.Allow, ruleFor(t, netip.MustParseAddrPort(to)))
		}
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
		})
	}
	l.entry(t, "hostile guest", "data before the answer", "nothing is read of a connection that is refused", func(t *testing.T, _ func(string)) {
		if w.saw("mark-early") {
			t.Error("it arrived")
		}
		checkHostileControls(t, b)
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
	control, _ := l.hostile(t, hostilePolicy, "nothing", true)
	for _, offence := range []string{
		"exit before the start", "a huge frame", "nonsense", "two messages in one frame", "a message beyond its window", "more streams than there may be",
	} {
		l.entry(t, "hostile guest", offence, "the link is bounded and strict", func(t *testing.T, _ func(string)) {
			b, _ := l.hostile(t, hostilePolicy, offence, true)
			if f := b.finished(); b.err == nil || f.Outcome != event.Errored || b.result.ExitCode != exitFailure {
				t.Errorf("the run ended with %v, %+v", b.err, f)
			}
			l.checkNothingLeft(t, b.result.Run)
			if control.err != nil || control.finished().Outcome != event.Success {
				t.Errorf("the control, a guest that says nothing wrong, ended with %v, %+v", control.err, control.finished())
			}
		})
	}
	l.entry(t, "hostile guest", "a measurement of nothing", "the measurement is compared with the plan", func(t *testing.T, _ func(string)) {
		b, _ := l.hostile(t, hostilePolicy, "nothing", false)
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
		b, w := l.hostile(t, hostilePolicy, "floods", true)
		close(stop)
		highest := <-peak
		grown := highest - min(before, highest)
		t.Logf("%s, %d MiB", time.Since(start).Round(time.Millisecond), grown>>20)
		if b.err != nil || grown > maxGrowth {
			t.Errorf("the runner's memory grew by %d MiB; %v", grown>>20, b.err)
		}
		b.answers = decodeAnswers(t, b.stdout)
		if n := b.answers["names"].Answer; n != "5000" {
			t.Errorf("%s names were resolved", n)
		}
		if n := b.answers["dials"].Answer; n != "0" {
			t.Errorf("%s connections were allowed", n)
		}
		if w.saw("asked for") || w.saw("dialled") {
			t.Error("something reached the resolver or the network")
		}
		c := b.result.Summary.Counts
		if c.RefusedConnections != 500 || c.RefusedNames != 5000 {
			t.Errorf("counted: %+v", c)
		}
		if len(b.events) > 10_000 {
			t.Errorf("the record has %d events", len(b.events))
		}
	})
}

func heapBytes() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
