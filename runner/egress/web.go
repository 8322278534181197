package egress

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
)

// webServer is the server that all inspected connections are handed to.
type webServer struct {
	server *http.Server
	conns  chan net.Conn
	done   chan struct{}
	ended  chan struct{}
	once   sync.Once
}

func newWeb(g *Gateway) *webServer {
	w := &webServer{conns: make(chan net.Conn), done: make(chan struct{}), ended: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	w.server = &http.Server{
		Handler: http.HandlerFunc(serveExchange), Protocols: protocols,
		ReadHeaderTimeout: g.limits.Opening, MaxHeaderBytes: maxHead - 4<<10, // net/http adds that much
		DisableGeneralOptionsHandler: true,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:                     log.New(io.Discard, "", 0), // what goes wrong is in the record
		ConnContext:                  withInspection,
	}
	go func() {
		defer close(w.ended)
		_ = w.server.Serve(handedOver{w}) // until close
	}()
	return w
}

// serve hands a connection over.
func (w *webServer) serve(ctx context.Context, conn net.Conn) *end {
	select {
	case w.conns <- conn:
		return nil
	case <-ctx.Done():
		return cause(ctx)
	}
}

func (w *webServer) close() {
	w.once.Do(func() { close(w.done) })
	_ = w.server.Close()
	<-w.ended
}

// handedOver is a listener for connections that exist already.
type handedOver struct{ w *webServer }

func (h handedOver) Accept() (net.Conn, error) {
	select {
	case conn := <-h.w.conns:
		return conn, nil
	case <-h.w.done:
		return nil, net.ErrClosed
	}
}

func (h handedOver) Close() error   { return nil }
func (h handedOver) Addr() net.Addr { return &net.TCPAddr{} }

type inspectionKey struct{}

// withInspection finds the inspection of a connection that net/http serves.
func withInspection(ctx context.Context, conn net.Conn) context.Context {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	return context.WithValue(ctx, inspectionKey{}, conn.(*agentEnd).in)
}
