// Package egress is what leaves the sandbox: it decides each outgoing connection, dials it, reads its first bytes,
// carries it and records it.
//
// A name that the policy could allow gets a synthetic address ([Gateway.Resolve]), so that the address which the agent then dials
// says which name it meant ([Gateway.Connect]). The runner looks the name up itself, checks every address, and dials exactly
// one that it checked. What the client says first must agree with the name: the server name of a TLS handshake, or
// the Host of each plain HTTP request. Only entries with `tcp: true` are carried without a look.
//
// What it refuses to do: it never asks a resolver about a name that is not allowed, never dials an address that
// was not checked, and never carries a protocol that it can't tie to the name. It does not end TLS, so inside a spliced
// connection the Host of the requests is the server's to check: name hosts with rules where that matters.
package egress
