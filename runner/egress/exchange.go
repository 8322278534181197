package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/org/agent-sandbox/policy"
)

// exchange is one request on an inspected connection, with its answer.
type exchange struct {
	in     *inspection
	w      http.ResponseWriter
	r      *http.Request
	record Request
	path   string // as it is sent: in its one spelling where rules look at it
	query  string

	judges   []*Credential // those of GitHub's that the request may have; nil: it is for none of its hosts
	scope    *GitHub       // of the host's credential, where it has one
	unnamed  string        // what to do about a GraphQL request that does not tell which of several credentials it is for
	push     *push         // the beginning of a push, once it was read
	taken    []byte        // of the body, to look at it
	plain    bool          // git reads the refusal
	attached []attachment
	leaked   atomic.Pointer[end] // found in the body
	body     *requestBody
	down     int64
	begun    bool // the answer has: an error can only cut it short

	mu    sync.Mutex // guards final, and until that is set the answer's headers
	final bool       // no 1xx may be written any more
}

// serveExchange is the handler of every inspected connection.
func serveExchange(w http.ResponseWriter, r *http.Request) {
	in := r.Context().Value(inspectionKey{}).(*inspection)
	if !in.enter() {
		panic(http.ErrAbortHandler)
	}
	defer in.active.Done()
	in.requests.Add(1)
	x := &exchange{in: in, w: w, r: r, record: Request{
		Connection: in.c.record.ID, Host: in.c.verdict.Target.String(), Port: in.c.record.Dialled.Port(),
		Method: cutTo(r.Method, maxMethodText), Start: time.Now(), Count: 1,
	}}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(in.ctx, cancel)() // a response that is copied does not notice otherwise
	e := x.serve(ctx)
	x.finish(e)
	if e != nil && x.begun {
		panic(http.ErrAbortHandler) // net/http's way to let the agent see that the answer is not complete
	}
}

// finish records the request.
func (x *exchange) finish(e *end) {
	r := &x.record
	if e != nil {
		r.Outcome, r.Code, r.Reason, r.Leak = e.outcome, e.code, e.reason, e.leak
	}
	if x.body != nil {
		r.Up = x.body.count.Load()
	}
	r.Down, r.Duration = x.down, time.Since(r.Start)
	x.in.c.g.journal.request(*r)
}

// serve carries one request. After an error the agent has got either a refusal or a part of the answer.
func (x *exchange) serve(ctx context.Context) *end {
	select {
	case x.in.c.g.exchanges <- struct{}{}:
		defer func() { <-x.in.c.g.exchanges }()
	default:
		return x.refuse(refuse(CodeBusy, fmt.Sprintf("%d requests are open, which is the limit", cap(x.in.c.g.exchanges))))
	}
	if e := x.decide(); e != nil {
		return x.refuse(e)
	}
	out, e := x.outgoing(ctx)
	if e != nil {
		return x.refuse(e)
	}
	// An answer may come before the body is complete (it does for 100-continue); net/http would else take the body in first.
	if err := http.NewResponseController(x.w).EnableFullDuplex(); err != nil {
		return x.refuse(broken(CodeBroken, "the agent broke off"))
	}
	defer x.body.Close() // RoundTrip may still read it after its answer
	answer, err := x.in.transport.RoundTrip(out)
	x.mu.Lock()
	x.final = true
	x.mu.Unlock()
	if err != nil {
		return x.refuse(x.failure(ctx, err))
	}
	defer answer.Body.Close()
	switch status := answer.StatusCode; {
	case status == http.StatusSwitchingProtocols:
		return x.switched(ctx, answer)
	case status < 200 || status > 999: // net/http would not write such a one
		return x.refuse(fail(CodeProtocol, "the host's answer has no proper status"))
	}
	return x.answer(ctx, answer)
}

// decide checks the request and asks the policy.
func (x *exchange) decide() *end {
	raw := x.r.RequestURI
	x.path, x.query, _ = strings.Cut(raw, "?")
	x.record.Path = cutTo(x.path, maxPathText)
	own := &request{host: x.r.Host}
	if !x.in.c.g.checks.method(x.r.Method) {
		x.record.Path = ""
		return refuse(policy.CodeBadRequest, "the method is not one that is passed on")
	}
	if e := x.in.c.g.checks.host(own, x.in.c.verdict.Target, x.in.c.record.Dialled.Port()); e != nil {
		return e
	}
	switch hosts := x.r.Header["Host"]; {
	case len(hosts) > 1, len(hosts) == 1 && hosts[0] != x.r.Host: // HTTP/2 can have both
		return refuse(CodeMismatch, "the request names two hosts")
	case !isTarget(raw) || !strings.HasPrefix(raw, "/") && (raw != "*" || x.r.Method != http.MethodOptions):
		return refuse(policy.CodeBadRequest, "the target of the request is not a path")
	}
	if e := checkHeaders(x.r.Header); e != nil {
		return e
	}
	if e := x.checkStandIns(); e != nil {
		return e
	}
	if e := scanHead(x.in.foreign, raw, x.r.Header); e != nil {
		return e
	}
	return x.ask()
}

// ask takes the verdict over. A host without rules of any kind takes every request, also one whose path has two readings.
func (x *exchange) ask() *end {
	v := x.in.c.verdict
	if v.Inspect {
		v = x.in.c.g.policy.Decide(x.question())
		if v.Allowed() {
			x.path = v.Path.String() // what was decided is what is sent
		}
	}
	x.record.Code, x.record.Reason = v.Code, v.Reason
	if v.Rule != nil {
		x.record.Rule, x.record.Place = v.Rule.String(), v.Rule.Place
	}
	if v.HTTP != nil {
		x.record.Line = v.HTTP.String()
	}
	if !v.Allowed() {
		return refuse(v.Code, v.Reason)
	}
	if e := x.checkGitHub(v.HTTP != nil); e != nil {
		return e
	}
	if e := x.checkGraphQL(); e != nil {
		return e
	}
	if e := x.checkRelease(); e != nil {
		return e
	}
	return x.checkLFS()
}

func (x *exchange) question() policy.Request {
	return policy.Request{Host: x.in.c.verdict.Target.String(), Port: x.in.c.record.Dialled.Port(), Method: x.r.Method, Path: x.path}
}

// checkHeaders refuses names that a gateway interface behind the host could take for those that frame the message.
func checkHeaders(header http.Header) *end {
	for name := range header {
		if plain := strings.ReplaceAll(name, "_", "-"); plain != name &&
			(isHopByHop(plain) || strings.EqualFold(plain, "Content-Length") || strings.EqualFold(plain, "Host")) {
			return refuse(policy.CodeBadRequest, "a header has an underscore where a hyphen belongs")
		}
	}
	return nil
}

// checkStandIns refuses headers by which servers take a request for one with another method or path, where the policy or a credential looks at
// those: https://owasp.org/www-project-web-security-testing-guide/ has them as ways past access control.
func (x *exchange) checkStandIns() *end {
	looks := func(c *Credential) bool { return c.GitHub != nil || len(c.Rules) > 0 }
	if !x.in.c.verdict.Inspect && !slices.ContainsFunc(x.in.bound, looks) {
		return nil
	}
	for name, values := range x.r.Header {
		switch strings.ToLower(strings.ReplaceAll(name, "_", "-")) {
		case "x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url":
			if !slices.Equal(values, []string{x.r.Method}) {
				return refuse(policy.CodeBadRequest, fmt.Sprintf("the header %s could make another request of it than the one that is decided: leave it out", name))
			}
		}
	}
	return nil
}

// isHopByHop are the headers that concern one connection alone (RFC 9110, section 7.6.1, and those of old).
func isHopByHop(name string) bool {
	switch textproto.CanonicalMIMEHeaderKey(name) {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings", "Proxy-Connection",
		"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info":
		return true
	}
	return false
}

// passedOn are the headers that go on to the other side.
func passedOn(header http.Header) http.Header {
	options := tokens(header["Connection"])
	out := make(http.Header, len(header))
	for name, values := range header {
		if !isHopByHop(name) && !slices.Contains(options, strings.ToLower(name)) {
			out[name] = slices.Clone(values)
		}
	}
	return out
}

// outgoing is the request as it is made to the host.
func (x *exchange) outgoing(ctx context.Context) (*http.Request, *end) {
	if e := x.checkPush(); e != nil {
		return nil, e
	}
	header := passedOn(x.r.Header)
	delete(header, "Host")
	attached, e := x.attach(ctx, header)
	if e != nil {
		return nil, e
	}
	x.attached = attached
	for _, a := range attached {
		if _, ok := x.r.Trailer[a.credential.Header]; ok {
			return nil, refuse(CodeCredential, fmt.Sprintf("the request announces %s in its trailers", a.credential.Header))
		}
	}
	if _, ok := header["User-Agent"]; !ok {
		header["User-Agent"] = []string{""} // else the transport puts in its own
	}
	if slices.Contains(tokens(x.r.Header["Te"]), "trailers") {
		header["Te"] = []string{"trailers"} // gRPC wants it
	}
	if x.upgrades() { // any other upgrade is left out, which a server is free to do; h2c would hide what follows
		header["Connection"], header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	}
	out := &http.Request{
		Method: x.r.Method, URL: x.target(), Host: x.r.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	x.body = &requestBody{x: x, from: x.untaken(), scan: newScanner(x.in.foreign)}
	if x.r.ContentLength != 0 {
		out.Body, out.ContentLength = x.body, x.r.ContentLength
		if len(x.r.Trailer) > 0 {
			out.Trailer = x.r.Trailer // the same map: the values come with the body's end
		}
	}
	return out.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: x.early})), nil
}

// target is the URL whose text on the wire is the path that was decided.
func (x *exchange) target() *url.URL {
	u := &url.URL{Scheme: x.in.scheme, Host: x.r.Host, RawQuery: x.query, ForceQuery: strings.HasSuffix(x.r.RequestURI, "?")}
	u.Path, u.RawPath = x.path, x.path
	if plain, err := url.PathUnescape(x.path); err == nil {
		u.Path = plain
	}
	return u
}

// upgrades tells whether the agent asks for a WebSocket (RFC 6455, section 4.1).
func (x *exchange) upgrades() bool {
	return x.r.ProtoMajor == 1 && x.r.Method == http.MethodGet && x.r.ContentLength == 0 &&
		slices.Contains(tokens(x.r.Header["Connection"]), "upgrade") && slices.Equal(tokens(x.r.Header["Upgrade"]), []string{"websocket"})
}

// failure explains why there is no answer.
func (x *exchange) failure(ctx context.Context, err error) *end {
	if e := x.leaked.Load(); e != nil {
		return e
	}
	var own *end
	switch {
	case errors.As(err, &own):
		return own
	case x.in.ctx.Err() != nil:
		return cause(x.in.ctx)
	case ctx.Err() != nil:
		return broken(CodeBroken, "the agent broke off")
	}
	return fail(CodeBroken, "the host broke off before it had answered, or its answer was none of HTTP")
}

// early passes an informational answer on. 100 is net/http's own to write, when the host has asked for the body.
func (x *exchange) early(code int, header textproto.MIMEHeader) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.final || code == http.StatusContinue {
		return nil
	}
	own := x.w.Header()
	for name, values := range x.forAgent(http.Header(header)) {
		own[name] = values
	}
	x.w.WriteHeader(code)
	clear(own)
	return nil
}

// requestBody is the agent's body on its way to the host.
type requestBody struct {
	x     *exchange
	from  io.ReadCloser
	scan  *scanner
	count atomic.Int64
	done  atomic.Bool
}

// Read gives out what has no placeholder. What is complete with a piece is refused with that piece, so the whole of it never leaves.
func (b *requestBody) Read(p []byte) (int, error) {
	if b.done.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.from.Read(p)
	name := b.scan.scan(p[:n])
	if errors.Is(err, io.EOF) && name == "" {
		if e := scanHead(b.x.in.foreign, "", b.x.r.Trailer); e != nil {
			name = e.leak
		}
	}
	if name != "" {
		e := leak(name)
		b.x.leaked.Store(e)
		return 0, e
	}
	b.count.Add(int64(n))
	return n, err
}

// Close leaves the agent's body to net/http: closing that reads on, for which the agent may wait to be told.
func (b *requestBody) Close() error {
	b.done.Store(true)
	return nil
}
