package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/agent-sandbox/policy"
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
	if first, ok := conn.(*firstVersion); ok {
		return context.WithValue(ctx, inspectionKey{}, first.in)
	}
	return context.WithValue(ctx, inspectionKey{}, conn.(*tls.Conn).NetConn().(*agentEnd).in)
}

// firstVersion is a connection of HTTP/1 as net/http gets it. HTTP/2 needs the connection as TLS has it.
type firstVersion struct {
	net.Conn
	in *inspection

	deadline atomic.Pointer[time.Time]
	told     sync.Once // after either the connection is over
}

// SetReadDeadline notes when a head has to be complete.
func (f *firstVersion) SetReadDeadline(t time.Time) error {
	f.deadline.Store(&t)
	return f.Conn.SetReadDeadline(t)
}

// Read records a head that did not come in time, which net/http gives up without a word. It sets no other deadline than that, and one
// that has long passed to end a read.
func (f *firstVersion) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if set := f.deadline.Load(); errors.Is(err, os.ErrDeadlineExceeded) && set.After(past) && !time.Now().Before(*set) {
		f.told.Do(func() {
			f.in.unreadable(CodeSlow, fmt.Sprintf("the head of a request was not complete after %s", f.in.c.g.limits.Opening), 0)
		})
	}
	return n, err
}

// ownError is how net/http begins its answer to what it can't read, after the status: the handler is never called for that.
const ownError = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"

// Write records what net/http refuses by itself.
func (f *firstVersion) Write(p []byte) (int, error) {
	status, rest, _ := strings.Cut(string(p[:min(len(p), len(ownError)+maxOwnStatus)]), "\r\n")
	if code, ok := strings.CutPrefix(status, "HTTP/1.1 "); ok && strings.HasPrefix("\r\n"+rest, ownError) && len(code) > 3 {
		number, _ := strconv.Atoi(code[:3])
		f.told.Do(func() { f.in.unreadable(CodeProtocol, "the request is not as HTTP has it", number) })
	}
	return f.Conn.Write(p)
}

// maxOwnStatus is more than a status line of net/http's has.
const maxOwnStatus = 64

// CloseWrite ends the sending direction, as net/http does after such an answer.
func (f *firstVersion) CloseWrite() error {
	if half, ok := f.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// unreadable records a request that never got to the handler.
func (in *inspection) unreadable(code policy.Code, reason string, status int) {
	in.requests.Add(1)
	in.c.g.journal.request(Request{
		Connection: in.c.record.ID, Host: in.c.verdict.Target.String(), Port: in.c.record.Dialled.Port(), Status: status, Start: time.Now(), Count: 1,
		Code: code, Reason: reason,
	})
}
