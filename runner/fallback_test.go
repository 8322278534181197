package runner

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// TestFallBackRefuses: less than the capture is nobody's unless the policy says so.
func TestFallBackRefuses(t *testing.T) {
	for _, text := range []string{"", "network: {capture: required}\n"} {
		r, log := newRun(t, Config{Policy: loaded(t, text)})
		err := r.fallBack("no rules")
		refused, ok := errors.AsType[*RefusedError](err)
		if !ok || !strings.Contains(refused.Reason, "no rules") || !strings.Contains(refused.Hint, "capture: auto") {
			t.Errorf("%q: %v", text, err)
		}
		if r.fallback != "" || len(log.of(event.Lowered{}.Kind())) > 0 {
			t.Errorf("%q: it went on: %q", text, r.fallback)
		}
	}
	r, _ := newRun(t, Config{Policy: &policy.Policy{}})
	if err := r.fallBack("no rules"); err == nil {
		t.Error("a policy without a word took less")
	}
}

// TestFallBack: what is lost is on record, and the plan has it.
func TestFallBack(t *testing.T) {
	r, log := newRun(t, Config{Policy: loaded(t, `network: {capture: auto, allow: [{host: many.test, port: "1000-1032", tcp: true}, {host: few.test, port: "1000-1031", tcp: true}]}
`)})
	if err := r.knownUncapturable(engine.Facts{Runtime: "runc"}); err != nil || r.fallback != "" {
		t.Fatalf("runc: %v, %q", err, r.fallback)
	}
	if err := r.knownUncapturable(engine.Facts{Runtime: "runsc"}); err != nil || !strings.Contains(r.fallback, "gVisor (runsc)") {
		t.Fatalf("runsc: %v, %q", err, r.fallback)
	}
	lowered := log.of(event.Lowered{}.Kind())
	if len(lowered) != 1 || !strings.Contains(lowered[0].(event.Lowered).Why, "nobody sees or records it") || lowered[0].(event.Lowered).Mend == "" {
		t.Errorf("recorded as %+v", lowered)
	}
	warned := log.of(event.Warning{}.Kind())
	if len(warned) != 1 || !strings.Contains(warned[0].(event.Warning).Message, "many.test has more than 32 ports") {
		t.Errorf("warned of %+v", warned)
	}
	p := r.plan
	if len(p.Lowered) != 1 {
		t.Errorf("the plan has as lowered %+v", p.Lowered)
	}
	if want := (NetworkPlan{Mode: "none", Fallback: r.fallback}); !cmp.Equal(p.Network, want) || !p.Container.Loopback || p.resolver() != netip.MustParseAddrPort("127.0.0.53:53") {
		t.Errorf("planned as %+v, %+v", p.Network, p.Container)
	}
	if text := string(p.files[0].Content); !strings.Contains(text, "there is no UDP") || strings.Contains(text, "recorded") {
		t.Errorf("the agent is told %s", text)
	}
	before := len(p.Files)
	if err := r.planNetwork(p); err != nil || len(p.Files) != before {
		t.Errorf("planned twice: %v, %q", err, p.Files)
	}
}

// TestFallBackNames: names lead to loopback addresses, each with the ports of the policy, and a dial there is one to the name.
func TestFallBackNames(t *testing.T) {
	r, _ := newRun(t, Config{Policy: loaded(t, `network:
  capture: auto
  allow: [a.test, {host: "*.wild.test", port: [22, "8000-9000"], tcp: true}, {host: down.test, port: 1, tcp: true, to: "127.0.0.1:1"}]
`)})
	if err := r.fallBack("no rules"); err != nil {
		t.Fatal(err)
	}
	box, guest := newBox(t, r)
	seen := map[netip.Addr]string{}
	for name, want := range map[string]string{"a.test": "[443]", "x.wild.test": "[22 8000 8001", "down.test": "[1]"} {
		a := guest.ask(name, "A")
		if !a.Allowed || !netip.MustParsePrefix("127.64.0.0/15").Contains(a.Addr) || !strings.HasPrefix(fmt.Sprint(a.Ports), want) || len(a.Ports) > link.MaxPorts {
			t.Errorf("%s: %+v, want the ports %s", name, a, want)
		}
		if other := seen[a.Addr]; other != "" {
			t.Errorf("%s and %s share %s", name, other, a.Addr)
		}
		seen[a.Addr] = name
	}
	if a := guest.ask("a.test", "AAAA"); !a.Allowed || a.Addr.IsValid() || len(a.Ports) > 0 {
		t.Errorf("AAAA: %+v", a)
	}
	if a := guest.ask("evil.test", "A"); a.Allowed || a.Addr.IsValid() || len(a.Ports) > 0 {
		t.Errorf("a name that is not allowed: %+v", a)
	}
	finish(t, r, box)
}

// TestPortsOnlyInFallback: with the capture every port arrives, so that none need be told.
func TestPortsOnlyInFallback(t *testing.T) {
	r, _ := newRun(t, Config{Policy: loaded(t, "network: {allow: [a.test]}\n")})
	box, guest := newBox(t, r)
	if a := guest.ask("a.test", "A"); !a.Allowed || a.Addr.IsLoopback() || len(a.Ports) > 0 {
		t.Errorf("%+v", a)
	}
	finish(t, r, box)
}

// ask looks a name up.
func (g *fakeGuest) ask(name, recordType string) link.Answer {
	g.t.Helper()
	st, err := g.session.Open(link.Header{Purpose: link.Resolve, Name: name, Type: recordType})
	if err != nil {
		g.t.Fatal(err)
	}
	defer st.Close()
	a, err := st.ReadAnswer()
	if err != nil {
		g.t.Fatal(err)
	}
	return a
}

func TestUncaptured(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{errors.New("create container: no such image"), ""},
		{&RefusedError{Reason: "outgoing connections aren't captured"}, ""},
		{fmt.Errorf("start: %w", &uncapturedError{"no rules"}), "no rules"},
		{errors.Join(fmt.Errorf("create: %w", engine.ErrNoAdmin), nil), "the engine grants no CAP_NET_ADMIN"},
	} {
		if got := uncaptured(tt.err); got != tt.want {
			t.Errorf("uncaptured(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}
