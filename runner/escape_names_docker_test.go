//go:build docker

package runner

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
)

// TestEscapeAllowed: what a policy that allows something does not allow.
func TestEscapeAllowed(t *testing.T) {
	l := testLab(t)
	base, offs := allowedSetups(t)
	var all []attack
	for _, part := range [][]attack{
		nearNames(), hostHeaders(), serverNames(base.world.ech), addresses(), redirects(), otherTargets(), smuggling(), pipelines(), paths(), webSockets(), strayPlaceholders(), ownValues(),
	} {
		all = append(all, part...)
	}
	l.runAllowed(t, "allowed", all, allowedControls(), base, offs)
}

// nearNames are look-ups of names that are not those of a rule, though they look like it.
func nearNames() []attack {
	var all []attack
	for _, n := range []struct{ what, name string }{
		{"the parent of a wildcard", "plain.example"},
		{"the parent with letters before it", "evilplain.example"},
		{"an allowed name with another one behind it", "c.plain.example.denied.example"},
		{"the same in capitals, with a dot behind", "C.PLAIN.EXAMPLE.DENIED.EXAMPLE.COM."},
		{"an allowed name with a hyphen for its dot", "c-plain.example"},
	} {
		all = append(all, attack{
			name: "look-up: " + n.what, op: "lookup", args: []string{n.name}, refused: refusals("ENOENT"), by: "names are compared whole", control: "control: plain",
			off: namedTargets, recorded: refusedName(n.name),
		})
	}
	return all
}

// httpRequest is the head of one, without a body.
func httpRequest(line, host string, more ...string) string {
	text := line + " HTTP/1.1\r\nHost: " + host + "\r\n"
	for _, h := range more {
		text += h + "\r\n"
	}
	return text + "\r\n"
}

// plainAttack says something to a host of plain HTTP. In what is said, HOST is the host, and MARK what must not get through.
func plainAttack(name, label, text, answers string, refused ...string) attack {
	host, mark := label+".plain.example", "mark-"+label
	return attack{
		name: name, op: "send", args: []string{host + ":80", "", fill(text, host, mark), answers}, refused: refused, mark: mark,
		by: "requests are taken apart", control: "control: plain", off: rawHosts, recorded: refusedAt(host),
	}
}

// hostHeaders are requests for another host than the one that was dialled.
func hostHeaders() []attack {
	var all []attack
	for i, h := range []struct{ name, host string }{
		{"another name", "denied.example"},
		{"another allowed name", "c.plain.example"},
		{"another name in capitals", "DENIED.Example"},
		{"another name with a dot behind", "denied.example."},
		{"user information", "HOST@denied.example"},
		{"user information, the other way round", "denied.example@HOST"},
		{"NUL", "HOST\x00.denied.example"},
		{"%00", "HOST%00.denied.example"},
		{"letters of another alphabet", "h0.pl\u0430in.example"},
		{"the same in Punycode", "h0.xn--plin-6cd.example"},
		{"an octal address", "0251.0376.0251.0376"},
		{"a hexadecimal address", "0xA9FEA9FE"},
		{"a decimal address", "2852039166"},
		{"an address of two parts", "127.1"},
		{"a mapped address", "[::ffff:169.254.169.254]"},
		{"another port", "HOST:8080"},
		{"two ports", "HOST:80:443"},
		{"a blank and another name", "HOST denied.example"},
		{"two names", "HOST, denied.example"},
		{"localhost", "localhost"},
	} {
		all = append(all, plainAttack("Host: "+h.name, fmt.Sprintf("h%d", i), httpRequest("GET /MARK", h.host), "1", "403"))
	}
	return append(
		all,
		plainAttack("Host: twice", "h90", httpRequest("GET /MARK", "HOST", "Host: denied.example"), "1", "403"),
		plainAttack("Host: none", "h91", "GET /MARK HTTP/1.1\r\n\r\n", "1", "403"),
		plainAttack("Host: none, in HTTP/1.0", "h92", "GET /MARK HTTP/1.0\r\n\r\n", "1", "403"),
		plainAttack("a URL of another host as target", "h93", httpRequest("GET http://denied.example/MARK", "HOST"), "1", "403"),
		plainAttack("chained CONNECT", "h94", httpRequest("CONNECT MARK.denied.example:443", "HOST"), "1", "403"),
		plainAttack("chained CONNECT to ssh", "h96", httpRequest("CONNECT MARK.denied.example:22", "HOST"), "1", "403"),
		plainAttack("chained CONNECT to plain http", "h97", httpRequest("CONNECT MARK.denied.example:80", "HOST"), "1", "403"),
		plainAttack("keep-alive: a second request for another host", "h95", httpRequest("GET /first", "HOST")+"{pause}"+httpRequest("GET /MARK", "denied.example"), "2", "403", "ECONNRESET"),
	)
}

// serverNames are TLS for another host than the one that was dialled.
func serverNames(ech string) []attack {
	var all []attack
	for i, n := range []struct{ name, server string }{
		{"another name", "s0.denied.example"},
		{"another allowed name", "c.spliced.example"},
		{"the name with something before it", "x.s2.spliced.example"},
		{"the name with something behind it", "s3.spliced.example.denied.example"},
		{"no name", "none"},
	} {
		label := fmt.Sprintf("s%d", i)
		host, mark := label+".spliced.example", "mark-"+label
		all = append(all, attack{
			name: "server name: " + n.name, op: "send", args: []string{host + ":443", n.server, httpRequest("GET /"+mark, host), "1"}, refused: refusals("alert"),
			mark: mark, by: "the server name is the one that was dialled", control: "control: spliced", off: rawHosts, recorded: refusedAt(host),
		})
	}
	front := attack{
		name: "fronting: Host is another name, where requests are looked at", op: "send",
		args:    []string{"front.ruled.example:443", "front.ruled.example", httpRequest("GET /open/mark-front", "c.ruled.example"), "1"},
		refused: refusals("421"), mark: "mark-front", by: "Host is the name that was dialled", control: "control: inspected", off: anyHost, recorded: refusedAt("front.ruled.example"),
	}
	hidden := attack{
		name: "an encrypted client hello", op: "hello", args: []string{"e0.spliced.example:443", "hidden.spliced.example", ech}, refused: refusals("alert"),
		mark: "server name hidden.spliced.example", by: "ECH is refused", control: "control: spliced", off: rawHosts, recorded: refusedAt("e0.spliced.example"),
	}
	return append(all, front, hidden)
}

// addresses are names that lead inward.
func addresses() []attack {
	toward := func(name, host string, to netip.Addr) attack {
		return attack{
			name: name, op: "send", args: []string{host + ":443", host, httpRequest("GET /", host), "1"}, refused: refusals("ECONNRESET"),
			mark: "dialled " + netip.AddrPortFrom(to.Unmap(), 443).String() + "\n", by: "the address is checked", control: "control: public address", off: anyAddress,
			recorded: refusedAt(host),
		}
	}
	var all []attack
	for i, addr := range inwardAddresses() {
		a := toward("a name with the address "+addr.String(), inwardLabel(i)+".inward.example", addr)
		all = append(all, a)
		if s := addr.String(); s == "169.254.169.254" || s == "fd00:ec2::254" || s == "100.100.100.200" {
			p := toward("a private name with the address "+s, "p-"+inwardLabel(i)+".local.example", addr)
			all = append(all, p)
		}
	}
	rebind := toward("rebinding between check and dial", "rebind.inward.example", netip.MustParseAddr("127.0.0.77"))
	rebind.refused, rebind.off, rebind.recorded = refusals("ok"), dialsNames, allowedAt("rebind.inward.example")
	rebind.by = "the address that was checked is dialled"
	turn := toward("rebinding between two connections", "turn.inward.example", netip.MustParseAddr("127.0.0.78"))
	turn.control = "control: turn"
	mixed := toward("a private address among public ones", "mixed.inward.example", netip.MustParseAddr("10.77.77.77"))
	mixed.refused, mixed.recorded = refusals("ok"), allowedAt("mixed.inward.example")
	return append(all, rebind, turn, mixed)
}

// redirects lead a client that follows them.
func redirects() []attack {
	var all []attack
	for _, to := range []string{"169.254.169.254", "10.0.0.5"} {
		all = append(all, attack{
			name: "a redirect to " + to, op: "fetch", args: []string{"h1", "GET", "", "http://redirect.plain.example/?to=http://" + to + "/latest"}, refused: refusals("ECONNRESET"),
			mark: "dialled " + to + ":80\n", by: "every dial is decided", control: "control: plain", off: namedTargets,
			recorded: refusedConnection("tcp", netip.MustParseAddrPort(to+":80")),
		})
	}
	name := attack{
		name: "a redirect to a name with a private address", op: "fetch", args: []string{"h1", "GET", "", "http://redirect.plain.example/?to=http://nxxx.inward.example/"},
		refused: refusals("ECONNRESET"), mark: "dialled 10.1.2.3:80\n", by: "the address is checked", control: "control: plain", off: anyAddress, recorded: refusedAt("nxxx.inward.example"),
	}
	return append(all, name)
}

// otherTargets are what else an allowed host has.
func otherTargets() []attack {
	var all []attack
	const http10 = "GET / HTTP/1.0\r\n\r\n"
	for _, d := range []struct {
		name, op, to string
		more         []string
	}{
		{"an allowed host's address, which DNS over HTTPS dials", "send", dialledAddress + ":443", []string{"", http10, "1"}},
		{"DNS over TCP to an allowed host's address", "dnstcp", dialledAddress + ":53", []string{"tunnel.example"}},
		{"DNS over TLS to an allowed host's address", "tcp", dialledAddress + ":853", nil},
		{"a synthetic address that no name has", "send", "28.5.200.200:443", []string{"", http10, "1"}},
	} {
		all = append(all, attack{
			name: d.name, op: d.op, args: append([]string{d.to}, d.more...), refused: refusals("ECONNRESET"), mark: "dialled " + d.to + "\n",
			by: "names are allowed, not addresses", control: "control: spliced", off: namedTargets, recorded: refusedConnection("tcp", netip.MustParseAddrPort(d.to)),
		})
	}
	port := attack{
		name: "another port of an allowed host", op: "send", args: []string{"port.spliced.example:8443", "", http10, "1"}, refused: refusals("ECONNRESET"),
		mark: "dialled " + publicAddress + ":8443\n", by: "a rule is for its ports", control: "control: spliced", off: namedTargets, recorded: refusedAt("port.spliced.example"),
	}
	// The controls have asked for the name that has this address by then.
	quic := attack{
		name: "QUIC to an allowed host's synthetic address", op: "udp", args: []string{"28.4.0.1:443"}, refused: refusals("EPERM", "ECONNREFUSED", "EACCES"),
		by: "rejecting what is not TCP", control: "control: loopback udp", off: openNetwork, recorded: refusedConnection("udp", netip.MustParseAddrPort("28.4.0.1:443")),
	}
	return append(all, port, quic)
}

// TestEscapeFronting is about a limit: where TLS is carried as it is, which of the hosts behind an address answers is the server's to
// decide. It is not counted as refused.
func TestEscapeFronting(t *testing.T) {
	l := testLab(t)
	w := newWorld(t)
	b := l.try(t, setup{policy: allowedPolicy, world: w, env: map[string]string{"ESCAPE_TOKEN": modelSecret, "ESCAPE_BOT": botSecret}}, []step{
		{"front", "send", []string{"f.spliced.example:443", "f.spliced.example", httpRequest("GET /mark-inner", "denied.example"), "1"}},
	})
	if !w.saw("mark-inner") {
		t.Errorf("it is refused (%+v %v), and the documents say otherwise", b.answers["front"], b.err)
	}
	if !b.has(func(e event.Event) bool {
		c, ok := e.(event.Connection)
		return ok && c.Name == "f.spliced.example" && c.ServerName == "f.spliced.example"
	}) {
		t.Error("the connection is not recorded")
	}
	l.report.add("allowed", "fronting: Host is another name, inside TLS that is carried as it is", "none: an entry with rules has it", "limit: the server's to check")
}
