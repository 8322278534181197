package egress

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/splice"
)

// Config is what a [Gateway] is made from.
type Config struct {
	// Policy decides everything; required. Its bundles are expanded by New.
	Policy *policy.Policy
	// Credentials are attached by the gateway to requests over TLS, and never without it.
	Credentials []Credential
	// Bundles have the hosts that were found for the discovered bundles of the policy.
	Bundles []policy.Bundle
	// Proxy is the company's proxy for the runner's own dials; zero for none.
	Proxy Proxy
	// CAs are PEM files with further roots to trust beside the system's, such as those of a company's proxy.
	CAs [][]byte
	// Recorder takes what happens; required.
	Recorder Recorder
	// Limits bound what the policy leaves open; zero fields mean the defaults.
	Limits Limits
	// Weakened is for tests alone.
	Weakened Weakened
}

// Limits bound the connections of one run.
type Limits struct {
	Connections int           // carried at once; more are refused. Default 4096
	Opening     time.Duration // from the connection until its first bytes, or a request's head, are complete. Default 15 s
	Connect     time.Duration // for look-up and dial, where the policy sets none. Default 10 s
	Idle        time.Duration // without traffic, where the policy sets none. Default 30 min: models think for long
	Records     int           // connections recorded one by one, and as many requests, allowed and refused ones each; the rest are totals. Default 2000
	Requests    int           // on inspected connections, open at once; more are refused. Default 4096
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Connections: cmp.Or(l.Connections, 4096),
		Opening:     cmp.Or(l.Opening, 15*time.Second),
		Connect:     cmp.Or(l.Connect, 10*time.Second),
		Idle:        cmp.Or(l.Idle, 30*time.Minute),
		Records:     cmp.Or(l.Records, 2000),
		Requests:    cmp.Or(l.Requests, 4096),
	}
}

// Gateway decides and carries the connections of one run. It is safe for concurrent use.
type Gateway struct {
	policy  *policy.Policy // expanded
	names   *names
	journal *journal
	proxy   *upstreamProxy
	limits  Limits
	run     *allowance
	rules   map[*policy.Rule]*allowance // by the addresses of policy.Network.Allow's items; not changed after New
	buffers sync.Pool
	pipes   *splice.Pipes

	credentials []Credential
	usages      usages
	roots       *x509.CertPool
	authority   *authority // nil, as web, when nothing is inspected
	web         *webServer
	sessions    tls.ClientSessionCache
	exchanges   chan struct{} // a place for each request that is open

	checks checks
	// Tests put other functions here; New sets the host's own resolver and dialer.
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	dial   func(ctx context.Context, network, address string) (net.Conn, error)

	mu      sync.Mutex // guards what follows
	closed  bool
	carried map[*connection]context.CancelCauseFunc
	serving sync.WaitGroup // Add only with mu held and closed false
}

// maxPipes bounds the downloads that are under way unread at one time. More are read and written.
const maxPipes = 64

// maxSessions bounds the TLS sessions with hosts that are kept for later connections.
const maxSessions = 256

// New makes a gateway. The error is a [policy.Problems] when the policy asks for what is not there: a discovered bundle without
// a discovery.
func New(cfg Config) (*Gateway, error) {
	if cfg.Policy == nil || cfg.Recorder == nil {
		return nil, errors.New("egress: a policy and a recorder are required")
	}
	expanded, problems := cfg.Policy.Expand(cfg.Bundles...)
	if len(problems) > 0 {
		return nil, problems
	}
	g := &Gateway{
		policy: expanded, names: newNames(expanded), limits: cfg.Limits.withDefaults(),
		run: newAllowance(expanded.Network.Limits, "the run"), rules: map[*policy.Rule]*allowance{},
		carried:  map[*connection]context.CancelCauseFunc{},
		pipes:    splice.New(maxPipes),
		lookup:   lookupHost,
		dial:     (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext,
		sessions: tls.NewLRUClientSessionCache(maxSessions), checks: allChecks(),
	}
	cfg.Weakened.apply(g)
	g.buffers.New = func() any { return new([largeBuffer]byte) }
	g.journal = newJournal(cfg.Recorder, g.limits.Records)
	g.exchanges = make(chan struct{}, g.limits.Requests)
	for i := range expanded.Network.Allow {
		rule := &expanded.Network.Allow[i]
		g.rules[rule] = newAllowance(rule.Limits, rule.Host.String())
	}
	var err error
	if g.credentials, err = prepare(cfg.Credentials); err != nil {
		return nil, err
	}
	hosts := intercepted(g.policy, g.credentials)
	if g.roots, err = trust(cfg.CAs, len(hosts) > 0 || cfg.Proxy.isTLS()); err != nil {
		return nil, err
	}
	if g.proxy, err = newUpstreamProxy(cfg.Proxy, g.roots); err != nil {
		return nil, err
	}
	if err := g.prepareInspection(hosts, cfg.Policy.Resources.Timeout); err != nil {
		return nil, err
	}
	return g, nil
}

// prepareInspection makes what ends TLS, if that is needed. Nothing that can fail comes after it in New: its server runs.
func (g *Gateway) prepareInspection(hosts []policy.Host, task time.Duration) (err error) {
	if g.authority, err = newAuthority(hosts, task); err != nil {
		return err
	}
	if g.authority != nil {
		g.web = newWeb(g)
	}
	return nil
}

// trust is the system's roots and the given ones. Reading the former takes longer than all else here, so they are read when
// there is TLS of our own to verify; without them the pool trusts less.
func trust(files [][]byte, system bool) (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	if system {
		var err error
		if roots, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("egress: read the system's certificate authorities: %w", err)
		}
	}
	for i, pem := range files {
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("egress: file %d of further certificate authorities has no certificate", i+1)
		}
	}
	return roots, nil
}

// Close ends the connections that are carried, waits for them, and records the totals. Later calls of Connect refuse.
func (g *Gateway) Close() error {
	g.mu.Lock()
	g.closed = true
	for _, cancel := range g.carried {
		cancel(broken(CodeEnded, "the run is over"))
	}
	g.mu.Unlock()
	g.serving.Wait()
	if g.web != nil {
		g.web.close()
	}
	g.journal.flush()
	return nil
}

// enter takes a place among the connections that are carried at once.
func (g *Gateway) enter(c *connection, cancel context.CancelCauseFunc) *end {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return refuse(CodeEnded, "the run is over")
	case len(g.carried) >= g.limits.Connections:
		return refuse(CodeBusy, fmt.Sprintf("%d connections are open, which is the limit", g.limits.Connections))
	}
	g.carried[c] = cancel
	g.serving.Add(1)
	return nil
}

func (g *Gateway) leave(c *connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.carried, c)
	if len(g.carried) == 0 {
		g.pipes.Trim()
	}
	g.serving.Done()
}
