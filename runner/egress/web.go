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

// webServer is the servers that all inspected connections are handed to: one for each version of HTTP, so that the connection goes through
// what records their own refusals. net/http takes a connection of HTTP/2 that is not TLS's own for one without TLS; that it is none
// was seen to before.
type webServer struct {
	first, second *http.Server
	conns, conns2 chan net.Conn
	done          chan struct{}
	running       sync.WaitGroup
	once          sync.Once
}

func newWeb(g *Gateway) *webServer {
	w := &webServer{conns: make(chan net.Conn), conns2: make(chan net.Conn), done: make(chan struct{})}
	one, two := new(http.Protocols), new(http.Protocols)
	one.SetHTTP1(true)
	two.SetUnencryptedHTTP2(true)
	w.first, w.second = w.start(g, one, w.conns), w.start(g, two, w.conns2)
	return w
}

func (w *webServer) start(g *Gateway, protocols *http.Protocols, conns <-chan net.Conn) *http.Server {
	server := &http.Server{
		Handler: http.HandlerFunc(serveExchange), Protocols: protocols,
		ReadHeaderTimeout: g.limits.Opening, MaxHeaderBytes: maxHead - 4<<10, // net/http adds that much
		DisableGeneralOptionsHandler: true,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:                     log.New(io.Discard, "", 0), // what goes wrong is in the record
		ConnContext:                  withInspection,
	}
	w.running.Go(func() { _ = server.Serve(handedOver{conns, w.done}) }) // until close
	return server
}

// serve hands a connection over.
func (w *webServer) serve(ctx context.Context, in *inspection, conn net.Conn) *end {
	to := w.conns
	var wrapped net.Conn
	if secure, ok := conn.(*tls.Conn); ok && secure.ConnectionState().NegotiatedProtocol == "h2" {
		to, wrapped = w.conns2, &secondVersion{awaited: awaited{Conn: conn, in: in}}
	} else {
		wrapped = &firstVersion{awaited{Conn: conn, in: in}}
	}
	select {
	case to <- wrapped:
		return nil
	case <-ctx.Done():
		return cause(ctx)
	}
}

func (w *webServer) close() {
	w.once.Do(func() { close(w.done) })
	_ = w.first.Close()
	_ = w.second.Close()
	w.running.Wait()
}

// handedOver is a listener for connections that exist already.
type handedOver struct {
	conns <-chan net.Conn
	done  <-chan struct{}
}

func (h handedOver) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h handedOver) Close() error   { return nil }
func (h handedOver) Addr() net.Addr { return &net.TCPAddr{} }

type inspectionKey struct{}

// withInspection finds the inspection of a connection that net/http serves.
func withInspection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, inspectionKey{}, conn.(interface{ inspection() *inspection }).inspection())
}

// awaited is a connection on which net/http waits for a head, or for how HTTP/2 begins.
type awaited struct {
	net.Conn
	in *inspection

	deadline atomic.Pointer[time.Time]
	told     sync.Once // after that the connection is over
}

func (a *awaited) inspection() *inspection { return a.in }

// SetReadDeadline notes when what is waited for has to be complete.
func (a *awaited) SetReadDeadline(t time.Time) error {
	a.deadline.Store(&t)
	return a.Conn.SetReadDeadline(t)
}

// Read records what did not come in time, which net/http gives up without a word. It sets no other deadline than that, and one
// that has long passed to end a read.
func (a *awaited) Read(p []byte) (int, error) {
	n, err := a.Conn.Read(p)
	if set := a.deadline.Load(); errors.Is(err, os.ErrDeadlineExceeded) && set.After(past) && !time.Now().Before(*set) {
		a.told.Do(func() {
			a.in.unreadable(CodeSlow, fmt.Sprintf("the head of a request was not complete after %s", a.in.c.g.limits.Opening), 0)
		})
	}
	return n, err
}

// firstVersion is a connection of HTTP/1 as net/http gets it.
type firstVersion struct{ awaited }

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
