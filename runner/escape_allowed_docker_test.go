//go:build docker

package runner

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
)

// What is in the sandboxes' environment in place of these, and must not be inside.
const (
	modelSecret = "tok_7Yw3Kq9ZbR2mXv5TnL8sHd4J"
	botSecret   = "bot_4Gh8Pz1WcQ6fVy3MkN9rSj7D"
)

// allowedPolicy lets a sandbox out to some hosts: plain HTTP, TLS that is carried as it is, requests that are looked at, and two
// with a credential. Attacks have a name of their own each, which tells them apart in the record.
const allowedPolicy = `
network:
  allow:
    - {host: "*.plain.example", port: 80}
    - {host: "*.spliced.example"}
    - {host: "*.raw.example", port: 25, tcp: true}
    - {host: "*.ruled.example", port: [80, 443], rules: ["GET /open/**", "POST /open/**", "GET /npm/@scope%2F*"]}
    - {host: "*.guarded.example", port: [80, 443]}
    - {host: "*.inward.example", port: [80, 443]}
    - {host: "*.local.example", private: true}
    - "*.model.example"
    - "*.bot.example"
  deny:
    - {host: "*.guarded.example", rules: ["* /private/**"]}
credentials:
  model: {from: "env:ESCAPE_TOKEN", host: "*.model.example"}
  bot: {from: "env:ESCAPE_BOT", host: "*.bot.example", rules: ["GET /open/**"]}
`

// The protections that are left out, each in a sandbox of its own.
const (
	rawHosts     = "tcp: true"           // nobody looks at what is said
	noRequests   = "no rules"            // nor at requests
	namedTargets = "other targets named" // the policy has what is attacked
	anyAddress   = "any address"
	anyHost      = "any Host"
	anyMethod    = "any method"
	noSearch     = "no search for placeholders"
	noRedaction  = "answers as they are"
	dialsNames   = "dials by name"
	openNetwork  = "no rules of netfilter"
)

// changed is the policy with replacements: old, new, old, new.
func changed(replacements ...string) string {
	return strings.NewReplacer(replacements...).Replace(allowedPolicy)
}

// allowedSetups are the sandbox that has to hold, and those in which something is left out.
func allowedSetups(t *testing.T) (base setup, offs []setup) {
	t.Helper()
	in := func(name, policy string) setup {
		w := newWorld(t)
		w.answer = w.escapeZone
		return setup{name: name, policy: policy, world: w, env: map[string]string{"ESCAPE_TOKEN": modelSecret, "ESCAPE_BOT": botSecret}}
	}
	offs = []setup{
		in(rawHosts, changed(`"*.plain.example", port: 80`, `"*.plain.example", port: 80, tcp: true`, `"*.spliced.example"`, `"*.spliced.example", port: 443, tcp: true`)),
		in(noRequests, changed(
			`, rules: ["GET /open/**", "POST /open/**", "GET /npm/@scope%2F*"]`, "", `  deny:
    - {host: "*.guarded.example", rules: ["* /private/**"]}
`, "", `, rules: ["GET /open/**"]`, "", `  model: {from: "env:ESCAPE_TOKEN", host: "*.model.example"}
`, "")),
		in(namedTargets, changed("  deny:\n", `    - plain.example
    - evilplain.example
    - c-plain.example
    - "*.denied.example"
    - "*.example.com"
    - {host: 169.254.169.254, port: 80}
    - {host: 10.0.0.5, port: 80}
    - {host: 28.5.200.200, port: 443, tcp: true}
    - {host: `+dialledAddress+`, port: [53, 443, 853], tcp: true}
    - {host: "*.spliced.example", port: 8443, tcp: true}
  deny:
`)),
	}
	for _, name := range []string{anyAddress, anyHost, anyMethod, noSearch, noRedaction, dialsNames} {
		s := in(name, allowedPolicy)
		w := &s.seam.egress
		w.Addresses, w.Hosts, w.Methods = name == anyAddress, name == anyHost, name == anyMethod
		w.Leaks, w.Redaction = name == noSearch, name == noRedaction
		s.world.again = name == dialsNames
		offs = append(offs, s)
	}
	loose := in(openNetwork, allowedPolicy)
	loose.guest, loose.seam.unchecked = []string{"rules"}, true
	return in("allowed hosts", allowedPolicy), append(offs, loose)
}

// allowedControls are what the policy is for.
func allowedControls() []step {
	get := func(path, host string) string { return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }
	return []step{
		{"control: plain", "send", []string{"c.plain.example:80", "", get("/control", "c.plain.example"), "1"}},
		{"control: the same name, spelled otherwise", "send", []string{"c.plain.example:80", "", get("/control", "C.Plain.EXAMPLE.:80"), "1"}},
		{"control: spliced", "send", []string{"c.spliced.example:443", "c.spliced.example", get("/control", "c.spliced.example"), "1"}},
		{"control: raw", "tcp", []string{"c.raw.example:25"}},
		{"control: inspected", "send", []string{"c.ruled.example:443", "c.ruled.example", get("/open/control", "c.ruled.example"), "1"}},
		{"control: inspected, plain", "send", []string{"c.ruled.example:80", "", get("/open/control", "c.ruled.example"), "1"}},
		{"control: inspected, h2", "fetch", []string{"h2", "GET", "", "https://c.ruled.example/open/1", "https://c.ruled.example/open/2"}},
		{"control: scoped package", "send", []string{"c.ruled.example:80", "", get("/npm/@scope%2Fname", "c.ruled.example"), "1"}},
		{"control: not denied", "send", []string{"c.guarded.example:80", "", get("/public/control", "c.guarded.example"), "1"}},
		{"control: public address", "send", []string{"c.inward.example:443", "c.inward.example", get("/control", "c.inward.example"), "1"}},
		{"control: turn", "send", []string{"turn.inward.example:443", "turn.inward.example", get("/control", "turn.inward.example"), "1"}},
		{"control: credential", "send", []string{"c.model.example:443", "c.model.example", get("/control", "c.model.example"), "1"}},
		{"control: credential with rules", "send", []string{"c.bot.example:443", "c.bot.example", get("/open/control", "c.bot.example"), "1"}},
		{"control: loopback udp", "udp", []string{"127.0.0.1:443"}},
	}
}

// refusedAt finds the refusal of a connection to a host, or of a request on it.
func refusedAt(host string) func(event.Event) bool {
	return func(e event.Event) bool {
		switch e := e.(type) {
		case event.ConnectionRefused:
			return e.Name == host
		case event.Request:
			return e.Host == host && e.Outcome == event.ConnectionWasRefused
		}
		return false
	}
}

// leakAt finds a placeholder that went astray.
func leakAt(host string) func(event.Event) bool {
	return func(e event.Event) bool {
		switch e := e.(type) {
		case event.ConnectionRefused:
			return e.Name == host && e.Leak == "model"
		case event.Request:
			return e.Host == host && e.Leak == "model"
		}
		return false
	}
}

// allowedAt finds a connection that was made: an attack that changes nothing is no refusal.
func allowedAt(host string) func(event.Event) bool {
	return func(e event.Event) bool {
		c, ok := e.(event.Connection)
		return ok && c.Name == host && c.Outcome == event.ConnectionAllowed
	}
}

// runAllowed tries the attacks in one sandbox that has to hold, and each one where its protection is left out. What reached the
// world counts, beside the answers.
func (l *lab) runAllowed(t *testing.T, part string, attacks []attack, controls []step, base setup, offs []setup) {
	t.Helper()
	all := func(in func(attack) bool) []step {
		out := slices.Concat([]step{{"the internet", "internet", []string{"443"}}}, controls)
		for _, a := range attacks {
			if in(a) {
				out = append(out, step{a.name, a.op, a.args})
			}
		}
		return out
	}
	stepsOf := func(s setup) func() []step {
		return func() []step { return all(func(a attack) bool { return s.name == base.name || a.off == s.name }) }
	}
	t.Run("sandboxes", func(t *testing.T) {
		for _, s := range append(offs[:len(offs):len(offs)], base) {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				l.shared(t, s, stepsOf(s))
			})
		}
	})
	for _, a := range attacks {
		l.entry(t, part, a.name, a.by, func(t *testing.T, _ func(string)) {
			b := l.shared(t, base, stepsOf(base))
			a.checkRefused(t, baseline{setup: base}, b)
			if a.reached(base.world, b) {
				t.Errorf("it got through, whatever the answer: %+v", b.answers[a.name])
			}
			i := slices.IndexFunc(offs, func(s setup) bool { return s.name == a.off })
			if i < 0 {
				t.Fatalf("there is no setup %q", a.off)
			}
			off := l.shared(t, offs[i], stepsOf(offs[i]))
			if !a.reached(offs[i].world, off) {
				t.Errorf("without the protection (%s) it does not get through either: %+v: the entry proves nothing", a.off, off.answers[a.name])
			}
		})
	}
}

// reached tells whether an attack had its way: a server saw its mark, or the answer has what is secret.
func (a attack) reached(w *world, b *box) bool {
	got := b.answers[a.name]
	switch {
	case a.mark != "" && w.saw(a.mark), a.tells != "" && strings.Contains(got.Detail, a.tells):
		return true
	}
	return a.mark == "" && a.tells == "" && got.Answer == "ok"
}

// escapeZone answers the runner's questions as attackers would.
func (w *world) escapeZone(name string, before int) []string {
	label, rest, _ := strings.Cut(name, ".")
	if rest != "inward.example" && rest != "local.example" {
		return []string{publicAddress}
	}
	switch {
	case label == "rebind" && before == 0:
		return []string{rebindAddress}
	case label == "rebind":
		return []string{"127.0.0.77"}
	case label == "turn" && before > 0:
		return []string{"127.0.0.78"}
	case label == "direct":
		return []string{dialledAddress}
	case label == "mixed":
		return []string{"10.77.77.77", publicAddress}
	}
	for i, addr := range inwardAddresses() {
		if label == inwardLabel(i) || label == "p-"+inwardLabel(i) {
			return []string{addr.String()}
		}
	}
	return []string{publicAddress}
}

// dialledAddress is one that a name has as well, and that is dialled without it.
const dialledAddress = "93.184.216.99"

// rebindAddress is what a name has that has another one afterwards.
const rebindAddress = "93.184.216.77"

// inwardAddresses lead to where nobody should get by a name.
func inwardAddresses() []netip.Addr {
	var all []netip.Addr
	for _, s := range []string{
		"127.0.0.53", "::1", "10.1.2.3", "172.16.9.9", "192.168.7.7", "169.254.7.7", "169.254.169.254", "fd00:ec2::254", "100.64.9.9", "100.100.100.200",
		"::ffff:10.9.9.9", "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1", "2002:7f00:1::", "0.0.0.0", "::", "fe80::1", "fc00::1", "224.0.0.1", "198.18.0.9",
		"240.0.0.9", "255.255.255.255", "168.63.129.16", "192.0.0.192",
	} {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func inwardLabel(i int) string { return "n" + strings.Repeat("x", i+1) }
