package runner

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// endTime is how long an agent may go on sending on a connection whose host is done with it.
const endTime = 5 * time.Second

// prepareEgress obtains the credentials, and opens the gateway unless the hosts of bundles have to be found first, which
// takes the engine and the image.
func (r *run) prepareEgress(ctx context.Context) error {
	if err := r.credentials(ctx); err != nil {
		return refusedBy(err)
	}
	if len(r.cfg.Policy.UsedBundles()) > 0 {
		return nil
	}
	return r.openGateway()
}

// findHosts opens the gateway for a policy with bundles. The image is known.
func (r *run) findHosts(ctx context.Context) error {
	found, err := r.discover(ctx, r.cfg.Policy.UsedBundles())
	if err != nil {
		return err
	}
	r.found = found
	for _, s := range found.Skipped {
		r.rec.Emit(event.Warning{Message: s.String(), Mend: s.Mend})
	}
	return r.openGateway()
}

// openGateway makes what decides and dials, also for a policy that allows nothing: there is one way to decide.
func (r *run) openGateway() error {
	expanded, problems := r.cfg.Policy.Expand(r.found.Bundles...)
	if len(problems) > 0 {
		return refusedBy(problems)
	}
	if r.cfg.Learn {
		expanded = expanded.AllowPublic()
		r.lower("network", "everything public may be reached while the policy is learned", "use `agent-sandbox run`")
	}
	cfg := egress.Config{Policy: expanded, Proxy: r.cfg.Proxy, CAs: r.cfg.CAs, Recorder: recorder{r}}
	for _, g := range r.grants {
		if g.Deliver != policy.DeliverInject {
			continue
		}
		cfg.Credentials = append(cfg.Credentials, egress.Credential{
			Name: g.Label(), Placeholder: g.Placeholder, Value: g.Value, Hosts: g.Hosts, Header: g.Header, Scheme: schemes()[g.Scheme],
			Username: g.Username, Rules: g.Rules, GitHub: r.gitHubScope(g.Name, g.Repositories, g.Shared),
		})
	}
	r.cfg.weaken(&cfg)
	gateway, err := egress.New(cfg)
	if err != nil {
		return refusedBy(err)
	}
	r.expanded, r.gateway = expanded, gateway
	return nil
}

// schemes are the words of the policy file.
func schemes() map[string]egress.Scheme {
	return map[string]egress.Scheme{"bearer": egress.Bearer, "basic": egress.Basic, "raw": egress.Raw}
}

// closeGateway ends what is still carried.
func (r *run) closeGateway() error {
	if r.gateway == nil {
		return nil
	}
	return r.gateway.Close()
}

// refusedBy makes a refusal of what is wrong with the policy: every problem with its place, and the mend of the first.
func refusedBy(err error) error {
	problems, ok := errors.AsType[policy.Problems](err)
	if !ok {
		return &RefusedError{Reason: strings.TrimPrefix(err.Error(), "egress: ")}
	}
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
			Proto: "tcp", Address: printableAddr(c.Dialled.Addr()), Port: c.Dialled.Port(), Name: c.Name, Reason: c.Reason, Leak: c.Leak,
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
		Up: c.Up, Down: c.Down, Requests: c.Requests, Leak: c.Leak, Start: c.Start.Round(0).UTC(), Duration: c.Duration, Count: c.Count,
	}
	if c.Upstream.IsValid() {
		e.Upstream = c.Upstream.String()
	}
	if c.Place.File != "" { // a rule of a kit has no line
		e.Place = c.Place.String()
	}
	return e
}

// Request implements egress.Recorder.
func (r recorder) Request(q egress.Request) {
	e := event.Request{
		Connection: q.Connection, Total: q.Total, Host: q.Host, Port: q.Port, Method: q.Method, Path: q.Path, Status: q.Status,
		Outcome: q.Outcome.String(), Code: string(q.Code), Reason: q.Reason, Rule: q.Rule, Line: q.Line, Leak: q.Leak,
		Up: q.Up, Down: q.Down, Start: q.Start.Round(0).UTC(), Duration: q.Duration, Count: q.Count,
	}
	if q.Place.File != "" {
		e.Place = q.Place.String()
	}
	if q.Outcome == egress.Refused && q.Leak == "" && !q.Total {
		e.Add = r.run.expanded.Explain(policy.Request{Host: q.Host, Port: q.Port, Method: q.Method, Path: q.Path}).Add
	}
	r.run.rec.Emit(e)
}

// NameRefused implements egress.Recorder.
func (r recorder) NameRefused(n egress.NameRefused) {
	e := event.NameRefused{Name: n.Name, Type: n.Type}
	if slices.Contains([]string{"A", "AAAA", "HTTPS"}, n.Type) { // the other types are not followed by a connection to the name
		e.Add = r.run.addition(n.Name, httpsPort)
	}
	r.run.refusals.Name(e)
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
	return r.expanded.Explain(policy.Request{Host: host, Port: port}).Add
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
	_ = stream.GiveUp()
}

// resolve answers for one name.
func (v *server) resolve(stream *link.Stream, h link.Header) {
	defer stream.GiveUp()
	a := link.Answer{}
	a.Addr, a.Allowed, a.Reason = v.run.cfg.resolve(v.run.gateway, h.Name, h.Type)
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
