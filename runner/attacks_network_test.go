package runner

import "testing"

// networkProofs lists each way out through the network, as credentialAttacks does. A name that ends in a colon is one of many entries, made
// from a list in which it is.
func networkProofs() map[string][]string {
	const network, allowed, hostile = "runner TestEscapeNetwork", "runner TestEscapeAllowed", "runner TestEscapeHostileGuest"
	return map[string][]string{
		"literal addresses":             {network + ": literal IPv4", network + ": literal IPv4, odd port", network + ": literal IPv6", hostile + ": an address"},
		"CONNECT":                       {network + ": ssh", network + ": plain http", network + ": another proxy", allowed + ": chained CONNECT", allowed + ": chained CONNECT to ssh", allowed + ": chained CONNECT to plain http"},
		"cloud metadata":                {network + ": metadata of AWS, GCP and Azure", network + ": metadata of AWS by IPv6", network + ": Azure's wire server", hostile + ": metadata"},
		"private and reserved ranges":   {network + ": RFC 1918, 10/8", network + ": CGNAT", network + ": 198.18/15", network + ": IPv4-mapped IPv6", network + ": NAT64", network + ": link-local IPv6"},
		"the engine's host":             {network + ": the docker bridge's gateway", network + ": host.docker.internal", hostile + ": the host's loopback"},
		"UDP, QUIC, ICMP":               {network + ": UDP", network + ": QUIC", network + ": ICMP echo to ", allowed + ": QUIC to an allowed host's synthetic address"},
		"DNS by other ways":             {network + ": DNS, by a public resolver", network + ": DNS over TCP", network + ": DNS over TLS", network + ": DNS over HTTPS", allowed + ": DNS over TCP to an allowed host's address"},
		"a tunnel in names":             {network + ": DNS, data in the labels", "runner TestEscapeTunnel: a tunnel in the names below an allowed wildcard"},
		"a denied name upstream":        {"runner TestEscapeNamesStayInside: a name that reaches a resolver of the host", "runner TestEscapeTunnel: a denied name that reaches a resolver"},
		"SNI, Host and dialled differ":  {allowed + ": server name: ", allowed + ": Host: ", allowed + ": an encrypted client hello"},
		"fronting":                      {allowed + ": fronting: Host is another name, where requests are looked at", "runner TestEscapeFronting"},
		"redirects":                     {allowed + ": a redirect to ", allowed + ": a redirect to a name with a private address"},
		"rebinding":                     {allowed + ": rebinding between check and dial", allowed + ": rebinding between two connections", allowed + ": a private address among public ones"},
		"odd spellings of addresses":    {network + ": octal address", network + ": hexadecimal address", network + ": decimal address", allowed + ": an octal address"},
		"odd spellings of names":        {allowed + ": NUL", allowed + ": %00", allowed + ": user information", allowed + ": another name with a dot behind", allowed + ": the same in Punycode", "runner TestEscapeHostileGuest: DENIED.example."},
		"h2c":                           {allowed + ": an upgrade to h2c"},
		"smuggling":                     {allowed + ": CL.TE", allowed + ": TE.CL", allowed + ": bare LF", "runner/egress FuzzRequest", "runner/egress FuzzChunks"},
		"pipelined over-read":           {allowed + ": pipelining: both in one piece", "runner TestEscapeHostileGuest: data before the answer"},
		"TRACE":                         {allowed + ": TRACE, which tells what was attached"},
		"keep-alive across rules":       {allowed + ": keep-alive: a forbidden request after an allowed one", allowed + ": keep-alive: a forbidden request after an allowed one, HTTP/2"},
		"encoded slashes, dot segments": {allowed + ": path on a host with ", allowed + ": control: scoped package"},
		"WebSocket elsewhere":           {allowed + ": a WebSocket of another host", allowed + ": a WebSocket on a forbidden path"},
		"too many bytes":                {"runner TestEscapeLimits: an upload beyond the limit of bytes"},
		"slow-loris":                    {"runner TestEscapeLimits: slow-loris: nothing at all", "runner TestEscapeLimits: slow-loris: a head, byte by byte", "runner TestEscapeLimits: slow-loris: a client hello, byte by byte"},
		"thousands of streams":          {"runner TestEscapeLimits: 1,000 connections at once", "runner TestEscapeHostileGuestEnds: more streams than there may be", "cmd/agent-sandbox TestNetworkLoad"},
		"malformed frames":              {"runner TestEscapeHostileGuestEnds: a huge frame", "runner TestEscapeHostileGuestEnds: two messages in one frame", "runner/link FuzzFrame"},
	}
}

// TestNetworkAttacks: what the table names is there.
func TestNetworkAttacks(t *testing.T) { checkProofs(t, networkProofs()) }

// evidenceProofs lists each way to a manifest that says something else than what happened.
func evidenceProofs() map[string][]string {
	const verify, cli = "runner/manifest TestVerify", "cmd/agent-sandbox TestManifestAttacks"
	return map[string][]string{
		"a manifest edited after signing":   {"runner/manifest TestVerifyTampered", "runner/manifest FuzzVerify", "runner/manifest TestOpenStrict"},
		"a truncated event log":             {verify + ": truncated events"},
		"a reordered event log":             {verify + ": reordered events"},
		"a manifest of another run":         {verify + ": another run"},
		"a swapped patch":                   {verify + ": swapped patch"},
		"an expired or foreign certificate": {verify + "Certificate: expired certificate", verify + "Certificate: foreign authority"},
		"a wrong repository":                {verify + "Certificate: wrong repository", verify + "Certificate: of another repository"},
		"another log's entry":               {"runner/manifest TestLogKinds", "runner/manifest TestLogTampered", "runner/manifest TestLogPublic"},
		"forged log lines":                  {"runner TestEscapeManifestForgedLog: forging lines of the audit log", cli + ": forged lines"},
		"terminal escapes":                  {"runner TestEscapeManifestNames: a name with ", cli + ": escapes and giant names"},
		"giant names":                       {"runner TestEscapeManifestSize: 100 names of 3,000 bytes that need six for each"},
		"killing the guest":                 {"runner TestEscapeManifestGuest: killing the guest", cli + ": killing the guest"},
		"forging the record":                {"runner TestEscapeManifestRecord: forging the record of the run", cli + ": the record's place"},
		"killing the runner":                {"cmd/agent-sandbox TestManifestOfADeadRunner"},
	}
}

// TestEvidenceAttacks: what the table names is there.
func TestEvidenceAttacks(t *testing.T) { checkProofs(t, evidenceProofs()) }
