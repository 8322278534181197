package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxStreams bounds the requests that one HTTP/2 connection has open at once.
	maxStreams = 100
	// maxAnswerHead bounds the head of an answer: content security policies get long.
	maxAnswerHead = 256 << 10
	// streamWindow and connectionWindow bound what an HTTP/2 server can send ahead of an agent that does not read.
	streamWindow     = 2 << 20
	connectionWindow = 4<<20 - 1
	// expectWait is for servers that know nothing of 100-continue (RFC 9110, section 10.1.1).
	expectWait = time.Second
)

// inspection is a connection whose requests are read and decided one by one: net/http serves the agent on it, and each request that
// is allowed is made anew towards the host. So whatever the agent's bytes could have meant, the host gets what was decided.
//
// The connections to the host belong to this one connection of the agent, and are never shared with another.
type inspection struct {
	c         *connection
	agent     *agentEnd
	scheme    string        // towards the host, and so towards the agent
	bound     []*Credential // attached on this host
	foreign   []pattern     // of the credentials that are not
	ctx       context.Context
	transport *http.Transport
	protocols []string // offered to the host
	requests  atomic.Uint64
	passedOn  atomic.Uint64 // answers of the host that could be net/http's own; see isOwnStatus

	mu     sync.Mutex // guards what follows
	ready  net.Conn   // made ahead of the first request
	hosts  map[*hostEnd]struct{}
	fault  *end // why the host can't be spoken to
	closed bool
	active sync.WaitGroup // Add only with mu held and closed false
}

// inspects tells whether TLS to the host has to be ended.
func (c *connection) inspects() bool {
	return c.verdict.Inspect || len(c.g.boundTo(c.verdict.Target)) > 0
}

// inspect is the stage for a connection whose first bytes were taken from fromClient already, or are still there.
func (c *connection) inspect(secure bool, taken []byte) stage {
	return func(ctx context.Context) *end {
		in := &inspection{
			c: c, ctx: ctx, scheme: "http", hosts: map[*hostEnd]struct{}{},
			agent: &agentEnd{c: c, rest: io.MultiReader(bytes.NewReader(taken), c.fromClient), closed: make(chan struct{})},
		}
		in.agent.in = in
		if secure {
			in.scheme = "https"
			in.bound = c.g.boundTo(c.verdict.Target) // never attached without TLS
		}
		in.foreign = c.g.checks.patterns(c.g.credentials, in.bound)
		return in.run(ctx, secure)
	}
}

func (in *inspection) run(ctx context.Context, secure bool) *end {
	defer context.AfterFunc(ctx, in.agent.abort)()
	defer in.close()
	in.ready = in.keep(in.c.upstream)
	in.transport = in.newTransport(secure)
	var conn net.Conn = in.agent
	if secure {
		agent := tls.Server(in.agent, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: in.meet})
		shake, cancel := context.WithTimeout(ctx, in.c.g.limits.Opening+in.c.g.connectLimit(in.c.verdict))
		defer cancel()
		if err := agent.HandshakeContext(shake); err != nil {
			return in.untrusted(ctx, err)
		}
		conn = agent
	}
	if e := in.c.g.web.serve(ctx, in, conn); e != nil {
		return e
	}
	select {
	case <-in.agent.closed:
	case <-ctx.Done():
	}
	if ctx.Err() != nil { // then the server has closed it too, perhaps first
		return cause(ctx)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.fault
}

// close waits for the requests and leaves no connection to the host.
func (in *inspection) close() {
	in.agent.abort()
	in.mu.Lock()
	in.closed = true
	for h := range in.hosts {
		_ = h.Conn.Close()
	}
	in.mu.Unlock()
	in.active.Wait()
	if in.transport != nil {
		in.transport.CloseIdleConnections()
	}
	in.c.record.Requests = in.requests.Load()
}

// meet answers the agent's ClientHello: the host is met first, so that the agent is offered the protocol that the
// host has chosen.
func (in *inspection) meet(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	cert, err := in.c.g.authority.certificate(in.c.verdict.Target)
	if err != nil {
		return nil, err
	}
	for _, p := range hello.SupportedProtos {
		if p == "h2" || p == "http/1.1" {
			in.protocols = append(in.protocols, p)
		}
	}
	offered := in.protocols
	in.mu.Lock()
	raw := in.ready
	in.ready = nil
	in.mu.Unlock()
	host, err := in.secure(hello.Context(), raw)
	switch {
	case err != nil:
		in.mu.Lock()
		in.fault = asEnd(err, nil)
		in.mu.Unlock()
	case host.ConnectionState().NegotiatedProtocol != "":
		offered = []string{host.ConnectionState().NegotiatedProtocol}
	case len(offered) > 0:
		offered = []string{"http/1.1"}
	}
	if err == nil {
		in.protocols = offered // of later connections too: nothing is translated from one version to the other
		in.mu.Lock()
		in.ready = host
		in.mu.Unlock()
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*cert}, NextProtos: offered,
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
	}, nil
}

// untrusted explains a TLS handshake that the agent did not finish.
func (in *inspection) untrusted(ctx context.Context, err error) *end {
	var alert *net.OpError
	switch {
	case ctx.Err() != nil:
		return cause(ctx)
	case errors.As(err, &alert) && alert.Op == "remote error":
		return fail(CodeUntrusted, fmt.Sprintf("the program does not trust the run's CA, or nothing that it was offered (%v): it has roots of its own, or does not read the usual variables", alert.Err))
	case errors.Is(err, context.DeadlineExceeded):
		return refuse(CodeSlow, "the agent's TLS handshake was not complete in time")
	}
	if errors.Is(err, io.EOF) {
		return fail(CodeUntrusted, "the agent broke off the TLS handshake; perhaps the program does not trust the run's CA")
	}
	return fail(CodeProtocol, fmt.Sprintf("no TLS with the agent: %v", err))
}

// newTransport is for the connections to this host. It knows no proxy, since the gateway's own dial does.
func (in *inspection) newTransport(secure bool) *http.Transport {
	t := &http.Transport{
		DisableCompression: true, ForceAttemptHTTP2: secure, MaxResponseHeaderBytes: maxAnswerHead,
		MaxIdleConnsPerHost: maxStreams, ExpectContinueTimeout: expectWait,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerConnection: connectionWindow, MaxReceiveBufferPerStream: streamWindow},
	}
	if secure {
		t.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := in.dial(ctx)
			if _, done := conn.(*tls.Conn); done || err != nil {
				return conn, err
			}
			host, err := in.secure(ctx, conn)
			if err != nil {
				return nil, err
			}
			return host, nil
		}
		return t
	}
	t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return in.dial(ctx) }
	return t
}

// dial takes the connection that was made ahead, or makes one.
func (in *inspection) dial(ctx context.Context) (net.Conn, error) {
	in.mu.Lock()
	conn, fault := in.ready, in.fault
	in.ready = nil
	in.mu.Unlock()
	switch {
	case fault != nil:
		return nil, fault
	case conn != nil:
		return conn, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(in.ctx, cancel)()
	upstream, err := in.c.g.reach(ctx, in.c.verdict, in.c.record.Dialled.Port(), &Connection{})
	if err != nil {
		return nil, asEnd(err, fail(CodeDial, "can't connect"))
	}
	return in.keep(upstream), nil
}

// secure speaks TLS with the host, which has to prove that it is the one.
func (in *inspection) secure(ctx context.Context, conn net.Conn) (*tls.Conn, error) {
	g := in.c.g
	ctx, cancel := context.WithTimeout(ctx, g.connectLimit(in.c.verdict))
	defer cancel()
	host := tls.Client(conn, &tls.Config{
		ServerName: in.c.verdict.Target.String(), RootCAs: g.roots, MinVersion: tls.VersionTLS12, NextProtos: in.protocols,
		ClientSessionCache: g.sessions, DynamicRecordSizingDisabled: true,
	})
	err := host.HandshakeContext(ctx)
	if err == nil {
		return host, nil
	}
	_ = conn.Close()
	var unproven *tls.CertificateVerificationError
	var own *end
	switch {
	case errors.As(err, &unproven):
		return nil, fail(CodeCertificate, fmt.Sprintf("the host %s did not prove who it is: %v", in.c.verdict.Target, unproven.Err))
	case errors.As(err, &own):
		return nil, own
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fail(CodeDial, "the host's TLS handshake was not complete in time")
	}
	return nil, fail(CodeCertificate, fmt.Sprintf("no TLS with the host %s: %v", in.c.verdict.Target, err))
}

// keep notes a connection to the host, so that close can end it.
func (in *inspection) keep(conn net.Conn) net.Conn {
	h := &hostEnd{Conn: conn, in: in}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		_ = conn.Close()
		return h
	}
	in.hosts[h] = struct{}{}
	return h
}

// faulty tells whether no request on this connection can succeed.
func (in *inspection) faulty() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.fault != nil
}

// enter counts a request; it is false when the connection is over.
func (in *inspection) enter() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.closed {
		in.active.Add(1)
	}
	return !in.closed
}
