package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/splice"
)

// Client is the agent's end of one connection, as the guest hands it over.
//
// Close ends the sending direction alone; Read goes on until the agent ends its own. Whoever implements it cuts a
// peer off that never does.
type Client interface {
	net.Conn
	// Answer says, once and before anything is written, whether the connection is made. After a no the agent sees a reset.
	Answer(allowed bool, reason string) error
	// Reset ends both directions at once, so that the agent sees a reset and not an end.
	Reset() error
}

// ErrReset is the cause of a context that was cancelled because the agent broke its connection off.
var ErrReset = errors.New("egress: the agent broke off")

// past is a deadline that ends every read and write.
var past = time.Unix(1, 0)

// connection is one connection on its way through the gateway.
type connection struct {
	g       *Gateway
	client  Client
	verdict policy.Verdict
	record  Connection
	end     context.CancelCauseFunc // with an *end

	upstream     halfCloser
	fromClient   *bufio.Reader
	fromUpstream io.Reader
	up, down     *meter
	moved        atomic.Int64
	idle         *idleTimer
}

// stage carries a connection whose first bytes are in fromClient, until both sides are done.
type stage func(ctx context.Context) *end

// Connect serves one connection that the agent opened to this address, until it has ended or ctx is cancelled. It
// answers the client once the policy has said yes and the host has accepted, so that a host that is down is a
// reset inside too.
func (g *Gateway) Connect(ctx context.Context, dialled netip.AddrPort, client Client) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dialled = netip.AddrPortFrom(dialled.Addr().Unmap(), dialled.Port())
	c := &connection{g: g, client: client, end: cancel, record: Connection{
		Name: g.names.name(dialled.Addr()), Dialled: dialled, Start: time.Now(),
	}}
	if e := g.enter(c, cancel); e != nil {
		c.decline(e)
		return
	}
	defer g.leave(c)
	if e := c.open(ctx); e != nil {
		c.decline(e)
		return
	}
	c.finish(c.carry(ctx))
}

// decline ends a connection that was not made.
func (c *connection) decline(e *end) {
	_ = c.client.Answer(false, e.reason)
	_ = c.client.Close()
	c.finish(e)
}

// finish records what became of it.
func (c *connection) finish(e *end) {
	r := c.record
	r.Outcome, r.Code, r.Reason = Allowed, c.verdict.Code, c.verdict.Reason
	if e != nil {
		r.Outcome, r.Code, r.Reason, r.Leak = e.outcome, e.code, e.reason, e.leak
	}
	if c.up != nil {
		r.Up, r.Down = c.up.count.Load(), c.down.count.Load()
	}
	r.Duration = time.Since(r.Start)
	c.g.journal.ended(r)
}

// open decides and dials.
func (c *connection) open(ctx context.Context) *end {
	if e := c.decide(); e != nil {
		return e
	}
	upstream, err := c.g.reach(ctx, c.verdict, c.record.Dialled.Port(), &c.record)
	if err != nil {
		return asEnd(err, fail(CodeDial, "can't connect"))
	}
	c.upstream, c.fromUpstream, c.fromClient = upstream, upstream, bufio.NewReader(c.client)
	own := c.g.rules[c.verdict.Rule]
	start := c.record.Start
	c.up = &meter{to: upstream, budgets: []*budget{c.g.run.up, own.up}, moved: &c.moved, start: start}
	c.down = &meter{to: c.client, socket: splice.Target(c.client), budgets: []*budget{c.g.run.down, own.down}, moved: &c.moved, start: start}
	return nil
}

// decide asks the policy about the name that the address stands for, or about the address itself.
func (c *connection) decide() *end {
	r := &c.record
	host := r.Name
	if host == "" {
		host = r.Dialled.Addr().String()
	}
	v := c.g.policy.Decide(policy.Request{Host: host, Port: r.Dialled.Port()})
	c.verdict = v
	if v.Rule != nil {
		r.Rule, r.Place = v.Rule.String(), v.Rule.Place
	}
	switch {
	case !v.Allowed():
		return refuse(v.Code, v.Reason)
	case !v.TCP && c.inspects() && c.g.web == nil: // New sees to it that there is one
		return refuse(CodeInspect, "only some requests are allowed there, and nothing looks at them")
	}
	return nil
}

// asEnd is err if it is an *end, and otherwise what it stands for.
func asEnd(err error, otherwise *end) *end {
	var e *end
	if errors.As(err, &e) {
		return e
	}
	return otherwise
}

// carry answers yes and moves bytes. It returns nil when both sides were done.
func (c *connection) carry(ctx context.Context) *end {
	defer c.upstream.Close()
	c.moved.Store(int64(time.Since(c.record.Start))) // the dial doesn't count
	c.idle = newIdleTimer(c, c.idleLimit())
	defer c.idle.stop()
	aborted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(aborted)
		abort(c.upstream)
		_ = c.client.SetDeadline(past)
	})
	defer func() {
		if !stop() {
			<-aborted
		}
	}()
	if err := c.client.Answer(true, ""); err != nil {
		return broken(CodeBroken, "the agent broke off")
	}
	run, e := c.begin(ctx)
	if e == nil {
		c.g.journal.opened(&c.record)
		e = run(ctx)
	}
	if e == nil {
		_ = c.client.Close()
		return nil
	}
	c.hangUp(e)
	return e
}

func (c *connection) idleLimit() time.Duration {
	limit := c.g.limits.Idle
	for _, l := range []policy.Limits{c.g.policy.Network.Limits, c.verdict.Rule.Limits} {
		if l.Idle > 0 {
			limit = l.Idle
		}
	}
	return limit
}

// begin looks at the first bytes and chooses how the connection is carried.
func (c *connection) begin(ctx context.Context) (stage, *end) {
	if c.verdict.TCP {
		c.record.Protocol = TCP
		c.up.scan = newScanner(c.g.checks.patterns(c.g.credentials, nil))
		return c.splice, nil
	}
	defer c.await(ctx)()
	first, err := c.fromClient.Peek(1)
	switch {
	case errors.Is(err, io.EOF):
		return nil, broken(CodeBroken, "the agent closed without having sent anything")
	case err != nil:
		e := c.opening(ctx, err)
		e.reason += "; a protocol in which the server speaks first needs an entry with `tcp: true`"
		return nil, e
	case first[0] == recordHandshake:
		c.record.Protocol = TLS
		return c.beginTLS(ctx)
	case 'A' <= first[0] && first[0] <= 'Z':
		c.record.Protocol = HTTP
		if c.verdict.Inspect {
			return c.inspect(false, nil), nil
		}
		c.up.scan = newScanner(c.g.checks.patterns(c.g.credentials, nil))
		return c.beginHTTP(ctx)
	}
	return nil, refuse(CodeProtocol, "the agent speaks neither TLS nor HTTP/1 there; another protocol needs an entry with `tcp: true`")
}

// await bounds the time until the first bytes, or the head of a request, are there. What it returns lifts the bound.
func (c *connection) await(ctx context.Context) func() {
	_ = c.client.SetReadDeadline(time.Now().Add(c.g.limits.Opening))
	return func() {
		_ = c.client.SetReadDeadline(time.Time{})
		if ctx.Err() != nil { // the abort's own deadline may just have been lifted
			_ = c.client.SetReadDeadline(past)
		}
	}
}

// opening explains an error of reading the first bytes.
func (c *connection) opening(ctx context.Context, err error) *end {
	var timeout net.Error
	switch {
	case ctx.Err() != nil:
		return cause(ctx)
	case errors.As(err, &timeout) && timeout.Timeout():
		return refuse(CodeSlow, fmt.Sprintf("the agent's first bytes were not complete after %s", c.g.limits.Opening))
	}
	return asEnd(err, broken(CodeBroken, "the agent broke off"))
}

// cause is why ctx was cancelled.
func cause(ctx context.Context) *end {
	if errors.Is(context.Cause(ctx), ErrReset) {
		return broken(CodeBroken, "the agent broke off")
	}
	return asEnd(context.Cause(ctx), broken(CodeEnded, "the run is over"))
}

// beginTLS ties the server name to the name that was dialled.
func (c *connection) beginTLS(ctx context.Context) (stage, *end) {
	h, raw, err := readHello(c.fromClient)
	if errors.Is(err, errHello) {
		return nil, refuse(CodeProtocol, err.Error())
	}
	if err != nil {
		return nil, c.opening(ctx, err)
	}
	c.record.ServerName = cut(h.serverName)
	if e := checkHello(h, c.verdict.Target); e != nil {
		return nil, e
	}
	if c.inspects() {
		return c.inspect(true, raw), nil
	}
	return func(ctx context.Context) *end {
		if _, err := c.up.Write(raw); err != nil {
			return asEnd(err, broken(CodeBroken, "the host broke off"))
		}
		return c.splice(ctx)
	}, nil
}

// checkHello wants the name that was dialled, or no name when an address was dialled (RFC 6066, section 3).
func checkHello(h hello, target policy.Host) *end {
	switch {
	case h.ech:
		// The server could be told another name inside, and a browser's dummy looks no different (RFC 9849, section 6.2).
		return refuse(CodeECH, "the agent hides the server name (encrypted client hello): switch that off in the program")
	case h.serverName == "" && target.Addr().IsValid():
		return nil
	case h.serverName == "":
		return refuse(CodeNoName, "the agent's TLS names no server, so that it can't be seen to be "+target.String())
	}
	name, err := parseName(h.serverName)
	if err != nil || name != target {
		return refuse(CodeMismatch, fmt.Sprintf("the agent dialled %s, but its TLS asks for %s", target, printable(h.serverName)))
	}
	return nil
}

// printable quotes what a client sent, shortened.
func printable(s string) string { return fmt.Sprintf("%q", cut(s)) }

// hangUp ends a connection that was answered with yes, with a last word in the client's own protocol if there is one.
func (c *connection) hangUp(e *end) {
	_ = c.client.SetWriteDeadline(time.Now().Add(time.Second))
	switch {
	case e.outcome != Refused || c.up.count.Load() > 0: // a last word now would be taken for the answer to something else
		_ = c.client.Reset()
		return
	case c.record.Protocol == TLS:
		_, _ = c.client.Write(alertUnrecognizedName())
	case c.record.Protocol == HTTP:
		_, _ = c.client.Write(forbidden(e, c.record))
	default:
		_ = c.client.Reset()
		return
	}
	_ = c.client.Close()
}

// alertUnrecognizedName is a fatal TLS alert (RFC 8446, section 6.2): clients say so at once.
func alertUnrecognizedName() []byte { return []byte{21, 3, 3, 0, 2, 2, 112} }
