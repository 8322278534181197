package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

// dials notes what is dialled, and answers from a table; an address that is not in it never answers.
type dials struct {
	t  testing.TB
	to map[string]error // address -> error, nil for success

	mu  sync.Mutex // guards got
	got []string
}

func (d *dials) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	d.got = append(d.got, address)
	d.mu.Unlock()
	err, known := d.to[address]
	if !known {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{}).DialContext(ctx, network, listen(d.t).Addr().String())
}

func (d *dials) addresses() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.got)
}

// reachVia runs the dial of one connection with a resolver and a network of our own.
func reachVia(t testing.TB, p *policy.Policy, host string, port uint16, answers []string, d *dials) (Connection, error) {
	t.Helper()
	g, _ := newGateway(t, p)
	z := &zone{addrs: map[string][]string{host: answers}}
	g.lookup, g.dial = z.lookup, d.dial
	var record Connection
	conn, err := g.reach(t.Context(), g.policy.Decide(policy.Request{Host: host, Port: port}), port, &record)
	if err == nil {
		_ = conn.Close()
	}
	if n := len(z.questions()); n > 1 {
		t.Errorf("%s was resolved %d times: between the check and the dial the answer could change", host, n)
	}
	return record, err
}

// TestAddressClasses: of what the resolver says, only permitted addresses are dialled.
func TestAddressClasses(t *testing.T) {
	p := mustPolicy(t, `  allow:
    - public.example
    - {host: private.example, private: true}
    - {host: both.example, to: "10.0.0.7:443", port: 443}
`)
	guarded := []string{
		"127.0.0.1", "::1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.1.1", "fe80::1", "fc00::1", "0.0.0.0", "::",
		"224.0.0.1", "ff02::1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "2001:db8::1",
		"169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200",
		"::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:a00:1::1", "2002:7f00:1::", "::7f00:1",
	}
	for _, addr := range guarded {
		d := &dials{t: t}
		_, err := reachVia(t, p, "public.example", 443, []string{addr}, d)
		if e := new(end); !errors.As(err, &e) || e.code != CodeAddress || len(d.addresses()) != 0 {
			t.Errorf("%s: %v, dialled %v", addr, err, d.addresses())
		}
	}
	for addr, want := range map[string]bool{
		"10.0.0.1": true, "127.0.0.1": true, "fc00::1": true, "100.64.0.1": true, "93.184.216.34": true,
		"169.254.169.254": false, "fd00:ec2::254": false, "224.0.0.1": false, "0.0.0.0": false, "::ffff:169.254.169.254": false,
	} {
		target := netip.AddrPortFrom(netip.MustParseAddr(addr).Unmap(), 443).String()
		d := &dials{t: t, to: map[string]error{target: nil}}
		if _, err := reachVia(t, p, "private.example", 443, []string{addr}, d); (err == nil) != want {
			t.Errorf("private: true and %s: %v, want ok %v", addr, err, want)
		}
	}
	// Among public and private answers only the public ones are dialled.
	d := &dials{t: t, to: map[string]error{"93.184.216.34:443": nil}}
	_, err := reachVia(t, p, "public.example", 443, []string{"10.0.0.1", "::1", "93.184.216.34", "127.0.0.1"}, d)
	if got := d.addresses(); err != nil || !slices.Equal(got, []string{"93.184.216.34:443"}) {
		t.Errorf("%v, dialled %v", err, got)
	}
	d = &dials{t: t, to: map[string]error{"10.0.0.7:443": nil}}
	if _, err := reachVia(t, p, "both.example", 443, nil, d); err != nil {
		t.Errorf("a service on a private address: %v", err)
	}
}

func TestAttempts(t *testing.T) {
	p := mustPolicy(t, "  allow: [a.example]\n")
	refused := errors.New("refused")
	answers := []string{"2606::1", "2606::2", "93.184.216.1", "93.184.216.2"}
	tests := []struct {
		name string
		to   map[string]error
		want []string
		ok   bool
	}{
		{"the first answers", map[string]error{"[2606::1]:443": nil}, []string{"[2606::1]:443"}, true},
		{"the first is silent", map[string]error{"93.184.216.1:443": nil}, []string{"[2606::1]:443", "93.184.216.1:443"}, true},
		{"the first refuses", map[string]error{"[2606::1]:443": refused, "93.184.216.1:443": nil}, []string{"[2606::1]:443", "93.184.216.1:443"}, true},
		{
			"all refuse",
			map[string]error{"[2606::1]:443": refused, "93.184.216.1:443": refused, "[2606::2]:443": refused, "93.184.216.2:443": refused},
			[]string{"[2606::1]:443", "93.184.216.1:443", "[2606::2]:443", "93.184.216.2:443"},
			false,
		},
	}
	for _, tt := range tests {
		d := &dials{t: t, to: tt.to}
		_, err := reachVia(t, p, "a.example", 443, answers, d)
		if got := d.addresses(); (err == nil) != tt.ok || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, dialled %v, want %v", tt.name, err, got, tt.want)
		}
	}
}

func TestConnectLimit(t *testing.T) {
	p := mustPolicy(t, "  allow: [{host: a.example, limits: {connect: 1s}}]\n")
	_, err := reachVia(t, p, "a.example", 443, []string{"93.184.216.1"}, &dials{t: t})
	if e := new(end); !errors.As(err, &e) || e.outcome != Failed || !strings.Contains(e.reason, "did not answer within 1s") {
		t.Errorf("%v", err)
	}
}

// TestLookupNames: a public name is asked for as it is, so that no search list makes another of it.
func TestLookupNames(t *testing.T) {
	p := mustPolicy(t, "  allow: [a.example, {host: b.example, private: true}, {host: db, port: 5432, private: true}]\n")
	for host, want := range map[string]string{"a.example": "a.example.", "b.example": "b.example", "db": "db"} {
		port := uint16(443)
		if host == "db" {
			port = 5432
		}
		v := p.Decide(policy.Request{Host: host, Port: port})
		if got := lookupName(v, v.Target); got != want {
			t.Errorf("lookup of %q, want %q", got, want)
		}
	}
}

func TestNewRefusesByName(t *testing.T) {
	rec := newRecording(t)
	src := `version: 1
network:
  allow:
    - npm
    - go
    - pypi
    - {host: api.github.com, rules: ["GET /repos/**"]}
  deny:
    - debian
    - {host: api.github.com, rules: ["DELETE /**"]}
credentials:
  model: {from: env:KEY, host: api.anthropic.com, header: x-api-key}
`
	p, err := policy.Load("policy.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	_, err = New(Config{Policy: p, Recorder: rec})
	var problems policy.Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	var got []string
	for _, problem := range problems {
		got = append(got, fmt.Sprintf("%d %s", problem.Place.Line, problem.Path))
	}
	want := []string{"4 network.allow[0]", "5 network.allow[1]", "9 network.deny[0]"}
	if !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q", got, want)
	}
	for _, cfg := range []Config{{Policy: p}, {Recorder: rec}, {Policy: policy.Default(), Recorder: rec, CAs: [][]byte{[]byte("no PEM")}}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("New(%+v) takes it", cfg)
		}
	}
}
