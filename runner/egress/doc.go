// Package egress is what leaves the sandbox: it decides each outgoing connection, dials it, reads its first bytes,
// carries it and records it.
//
// A name that the policy could allow gets a synthetic address ([Gateway.Resolve]), so that the address which the agent then dials
// says which name it meant ([Gateway.Connect]). The runner looks the name up itself, checks every address, and dials exactly
// one that it checked. What the client says first must agree with the name: the server name of a TLS handshake, or
// the Host of each plain HTTP request. Only entries with `tcp: true` are carried without a look.
//
// # Inspection
//
// Where the policy has rules on requests, or a [Credential] is for the host, each request is read: TLS ends here, under the run's own
// authority ([Gateway.Authority]), and begins anew towards the host, which is always verified. The agent is offered the
// version of HTTP that the host has chosen. An allowed request is made anew, so that the host reads exactly what was
// decided: one request, for the name that was dialled and the path in its one spelling. TRACE and CONNECT are
// refused, upgrades other than to a WebSocket are left out. A refusal is an answer in JSON, or in gRPC's terms, and the connection goes
// on. Elsewhere TLS is carried as it is, and the Host of the requests inside is the server's to check.
//
// # Credentials
//
// A credential goes with every request over TLS to its hosts that its rules name, whether the agent sends the placeholder or nothing
// in that header: git, for one, sends nothing at first. The agent may so use the credential for whatever the
// policy allows there, but never sees it, chooses it or takes it elsewhere. A value of its own in that header is refused: with a token
// that somebody has planted, what the agent sends would end up in that somebody's account. Nothing is ever attached
// without TLS, nor on entries with `tcp: true`. Where an answer repeats the credential, in headers, trailers or a body that is not compressed, the
// placeholder stands for it again.
//
// A credential of GitHub's may have a scope ([GitHub]): the repositories that its requests may be for, and the refs that may be pushed. The commands of
// a push are read, and decided, before the credential is attached.
//
// A placeholder on its way to any other host, or in the clear, is refused and recorded as a leak. The search takes in the target, headers, body and
// trailers of inspected requests, and all that is sent as plain HTTP or raw TCP, as it is and in base64. What of a body
// went out before the placeholder was complete is gone; spliced TLS, WebSocket frames (which are masked) and what is compressed are not seen.
//
// What the package refuses to do: it never asks a resolver about a name that is not allowed, never dials an address that
// was not checked, never carries a protocol that it can't tie to the name, and never passes on what it should have read and
// could not.
package egress
