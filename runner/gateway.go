package runner

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// endTime is how long an agent may go on sending on a connection whose host is done with it.
const endTime = 5 * time.Second

// openGateway makes what decides and dials, also for a policy that allows nothing: there is one way to decide.
func (r *run) openGateway() (err error) {
	r.gateway, err = egress.New(egress.Config{
		Policy: r.cfg.Policy, Proxy: r.cfg.Proxy, CAs: r.cfg.CAs, Recorder: recorder{r},
	})
	var problems policy.Problems
	switch {
	case errors.As(err, &problems):
		return refusedBy(problems)
	case err != nil:
		return &RefusedError{Reason: strings.TrimPrefix(err.Error(), "egress: ")}
	}
	return nil
}

// refusedBy has every problem with its place, and the mend of the first.
func refusedBy(problems policy.Problems) error {
	refused := &RefusedError{Hint: problems[0].Hint}
	var all []string
	for _, p := range problems {
		p.Hint = ""
		all = append(all, p.Error())
	}
	refused.Reason = strings.Join(all, "; ")
	return refused
}

// recorder makes events of what the gateway records.
type recorder struct{ run *run }

// Connection implements egress.Recorder.
func (r recorder) Connection(c egress.Connection) {
	if c.Outcome == egress.Refused {
		e := event.ConnectionRefused{
			Proto: "tcp", Address: printableAddr(c.Dialled.Addr()), Port: c.Dialled.Port(), Name: c.Name, Reason: c.Reason,
		}
		host := e.Name
		if host == "" {
			host = e.Address
		}
		e.Add = r.run.addition(host, e.Port)
		r.run.refusals.Connections(e, c.Count)
	}
	if c.Outcome != egress.Refused || c.ID != 0 {
		r.run.rec.Emit(connected(c))
	}
}

// connected is the event of a connection that was carried, or should have been.
func connected(c egress.Connection) event.Connection {
	e := event.Connection{
		ID: c.ID, Open: c.Open, Name: c.Name, Address: printableAddr(c.Dialled.Addr()), Port: c.Dialled.Port(),
		Via: c.Via, Protocol: string(c.Protocol), ServerName: c.ServerName,
		Outcome: c.Outcome.String(), Code: string(c.Code), Reason: c.Reason, Rule: c.Rule,
		Up: c.Up, Down: c.Down, Requests: c.Requests, Start: c.Start.Round(0).UTC(), Duration: c.Duration, Count: c.Count,
	}
	if c.Upstream.IsValid() {
		e.Upstream = c.Upstream.String()
	}
	if !c.Place.IsZero() {
		e.Place = c.Place.String()
	}
	return e
}

// NameRefused implements egress.Recorder.
func (r recorder) NameRefused(n egress.NameRefused) {
	r.run.refusals.Name(event.NameRefused{Name: n.Name, Type: n.Type, Add: r.run.addition(n.Name, httpsPort)})
}

// httpsPort is the one that a rule without a port is for.
const httpsPort = 443

// addition is what the policy lacks for a target. Nobody should paste an address that is no public one without a thought, so
// for those there is only `policy explain`.
func (r *run) addition(host string, port uint16) string {
	if addr, err := netip.ParseAddr(host); err == nil && policy.AddressClass(addr) != policy.ClassPublic {
		return ""
	}
	if port == 0 {
		return ""
	}
	return r.cfg.Policy.Explain(policy.Request{Host: host, Port: port}).Add
}

// client is the agent's end of a connection, on a stream of the link. Its Close ends the sending direction alone.
type client struct{ *link.Conn }

var _ egress.Client = client{}

// Answer implements egress.Client.
func (c client) Answer(allowed bool, reason string) error {
	return c.WriteAnswer(link.Answer{Allowed: allowed, Reason: reason})
}

// connect carries one outgoing connection, or refuses it.
func (v *server) connect(ctx context.Context, stream *link.Stream, h link.Header) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn := link.NewConn(stream, &v.resets, v.send, func() { cancel(egress.ErrReset) })
	v.run.gateway.Connect(ctx, h.Addr, client{conn})
	conn.Finish(endTime)
}

// resolve answers for one name.
func (v *server) resolve(stream *link.Stream, h link.Header) {
	defer stream.Close()
	a := link.Answer{}
	a.Addr, a.Allowed, a.Reason = v.run.gateway.Resolve(h.Name, h.Type)
	if v.loopback && a.Addr.IsValid() {
		a.Ports = firstPorts(v.run.gateway.Ports(h.Name), link.MaxPorts)
	}
	_ = stream.WriteAnswer(a)
}

// firstPorts are at most limit of the ports.
func firstPorts(ranges []policy.PortRange, limit int) []uint16 {
	var ports []uint16
	for _, r := range ranges {
		for port := int(r.First); port <= int(r.Last) && len(ports) < limit; port++ {
			ports = append(ports, uint16(port))
		}
	}
	return ports
}
