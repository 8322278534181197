package egress

import (
	"net/netip"
	"time"

	"github.com/org/agent-sandbox/policy"
)

// Recorder takes what happened, in the order of the calls and possibly from many goroutines at once. All methods return quickly.
type Recorder interface {
	// Connection records a connection. Refused ones come one by one however many there are (event.Refusals bounds
	// them); the number of calls for all others is bounded.
	Connection(Connection)
	// NameRefused records a look-up, likewise without bound.
	NameRefused(NameRefused)
	// Request records a request on an inspected connection, when it has ended. The number of calls is bounded.
	Request(Request)
}

// Outcome is what became of a connection. The zero Outcome is a refusal.
type Outcome int

// The outcomes.
const (
	Refused Outcome = iota // by the policy, before or after the first bytes
	Allowed                // carried
	Failed                 // allowed, but the host could not be reached
)

// String is "refused", "allowed" or "failed".
func (o Outcome) String() string {
	switch o {
	case Allowed:
		return "allowed"
	case Failed:
		return "failed"
	}
	return "refused"
}

// MarshalText is [Outcome.String].
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Protocol is what the client's first bytes were.
type Protocol string

// The protocols. The empty string is a connection that ended before.
const (
	TLS  Protocol = "tls"
	HTTP Protocol = "http" // plain HTTP/1
	TCP  Protocol = "tcp"  // not looked at
)

// Connection is the record of one connection, or of many (see Count).
type Connection struct {
	// ID counts from 1. A record replaces an earlier one with the same ID. It is 0 when Count is the total of many
	// connections: then the record replaces the earlier one of the same Name, Dialled, Outcome and Rule.
	ID uint64
	// Open is set while the connection is carried; the record at its end follows.
	Open bool

	Name     string         // that the agent resolved; empty when it dialled an address
	Dialled  netip.AddrPort // as the agent dialled it: synthetic if Name is set
	Upstream netip.AddrPort // that the runner dialled; zero if it did not, or a proxy did
	Via      string         // host:port of the proxy, if there was one
	Protocol Protocol
	// ServerName is the server name or Host that the client sent, at most 260 bytes of anything.
	ServerName string

	Outcome Outcome
	Code    policy.Code // the policy's, or one of this package
	Reason  string      // one sentence for people
	Rule    string      // the rule that decided, as an item of the policy file; empty if none did
	Place   policy.Place

	Up, Down int64  // bytes from the agent and to it
	Requests uint64 // of plain HTTP, and of intercepted TLS
	// Leak names the credential whose placeholder was on its way to where the credential is never attached.
	Leak     string
	Start    time.Time
	Duration time.Duration
	Count    uint64 // connections in this record
}

// Request is the record of one request on an inspected connection, or of many (see Total).
type Request struct {
	Connection uint64 // the ID of its connection; 0 when that has no record of its own
	// Total is set when Count is the total of many requests: then there is no Method, Path, Status or Connection, and the
	// record replaces the earlier total of the same Host, Port, Outcome, Rule and Line.
	Total bool

	Host   string // that was dialled, in its one spelling
	Port   uint16
	Method string // at most 32 bytes
	Path   string // without the query: at most 512 bytes of visible ASCII
	Status int    // that the agent got; 0 when it got none

	Outcome Outcome
	Code    policy.Code
	Reason  string // one sentence for people
	Rule    string // the rule that decided, as an item of the policy file; empty if none did
	Line    string // the line of the rule, if it was one
	Place   policy.Place
	Leak    string // as in Connection

	Up, Down int64 // bytes of the bodies, or of a WebSocket
	Start    time.Time
	Duration time.Duration
	Count    uint64 // requests in this record
}

// NameRefused is a look-up that was answered with "no such name".
type NameRefused struct {
	Name   string // as asked, at most 260 bytes of anything
	Type   string // "A", "AAAA", ...
	Code   policy.Code
	Reason string
}

// The codes beside those of the policy.
const (
	CodeInspect     policy.Code = "inspect"     // the connection would have to be read, which can't be done
	CodeNames       policy.Code = "names"       // more names than there are addresses for
	CodeBusy        policy.Code = "busy"        // too many connections at once
	CodeResolve     policy.Code = "resolve"     // the name has no address
	CodeAddress     policy.Code = "address"     // the name has an address that is not to be dialled
	CodeDial        policy.Code = "dial"        // no address answered
	CodeProxy       policy.Code = "proxy"       // the proxy would not
	CodeMismatch    policy.Code = "mismatch"    // the client meant another host than it dialled
	CodeNoName      policy.Code = "no-name"     // TLS without a server name
	CodeECH         policy.Code = "ech"         // TLS with an encrypted server name
	CodeProtocol    policy.Code = "protocol"    // neither TLS nor HTTP/1, or not as it is written
	CodeSlow        policy.Code = "slow"        // the first bytes did not come in time
	CodeByteLimit   policy.Code = "byte-limit"  // the policy's limit of bytes
	CodeIdle        policy.Code = "idle"        // no traffic for too long
	CodeUntrusted   policy.Code = "untrusted"   // the client would not take the run's certificate
	CodeCertificate policy.Code = "certificate" // the host did not prove who it is
	CodeCredential  policy.Code = "credential"  // the request is not one that a credential goes with
	CodeLeak        policy.Code = "leak"        // a placeholder was on its way elsewhere
	CodeEnded       policy.Code = "ended"       // the run was over
	CodeBroken      policy.Code = "broken"      // one side broke off
)

// maxText bounds what a hostile client can put into a record; longer than any name.
const maxText = 260

// The same for requests.
const (
	maxMethodText = 32
	maxPathText   = 512
)

// end is why a connection is over, when it is not that both sides were done.
type end struct {
	outcome Outcome
	code    policy.Code
	reason  string
	leak    string // the credential, if its placeholder is the reason
}

func (e *end) Error() string { return e.reason }

func refuse(code policy.Code, reason string) *end {
	return &end{outcome: Refused, code: code, reason: reason}
}

func fail(code policy.Code, reason string) *end {
	return &end{outcome: Failed, code: code, reason: reason}
}

// broken ends a connection that was allowed and carried.
func broken(code policy.Code, reason string) *end {
	return &end{outcome: Allowed, code: code, reason: reason}
}
