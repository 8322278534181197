package egress

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// forAgent are the headers of an answer as the agent gets them: without those of the connection, without what would
// send the agent past the gateway, and without the credential.
func (x *exchange) forAgent(header http.Header) http.Header {
	out := passedOn(header)
	delete(out, "Alt-Svc") // HTTP/3 can't leave the sandbox: trying would cost the agent time
	x.in.c.g.checks.redact(out, x.attached)
	return out
}

// answer passes the host's answer on as it comes.
func (x *exchange) answer(ctx context.Context, answer *http.Response) *end {
	x.begun = true
	x.record.Outcome, x.record.Status = Allowed, answer.StatusCode
	for _, a := range x.attached {
		x.in.c.g.usages.count(a.credential.Name, x.record.Host, answer.Header)
	}
	own := x.w.Header()
	for name, values := range x.forAgent(answer.Header) {
		own[name] = values
	}
	for _, name := range []string{"Date", "Content-Type"} {
		if _, ok := own[name]; !ok {
			own[name] = nil // else net/http puts in its own
		}
	}
	announced := slices.Sorted(maps.Keys(answer.Trailer))
	if len(announced) > 0 {
		own["Trailer"] = []string{strings.Join(announced, ", ")}
	}
	if isOwnStatus(answer.StatusCode) {
		x.in.passedOn.Add(1)
	}
	x.w.WriteHeader(answer.StatusCode)
	// An answer that has no body ends with its head: gRPC tells a refusal from a broken stream by that.
	if answer.ContentLength != 0 && x.r.Method != http.MethodHead {
		to := x.unechoed(answer.Header)
		if e := x.copy(ctx, to, answer.Body); e != nil {
			return e
		}
		if err := to.Close(); err != nil {
			return x.cut(ctx, "the agent broke off")
		}
	}
	x.trailers(answer.Trailer, announced)
	return nil
}

// unechoed is where the body of an answer goes. A host that repeats the credential in it would give it away; the placeholder, which is of the
// same length, stands for it. What is compressed can't be searched.
func (x *exchange) unechoed(header http.Header) io.WriteCloser {
	var to io.WriteCloser = unclosed{x.w}
	if encoding := header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return to
	}
	for _, a := range x.attached {
		if set := x.in.c.g.checks.echo(a); !set.IsEmpty() {
			to = chained{set.NewEagerWriter(to, nil), to}
		}
	}
	return to
}

// unclosed is a writer that nobody need close.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// chained closes a writer and then the one behind it.
type chained struct {
	io.WriteCloser
	behind io.Closer
}

func (c chained) Close() error { return errors.Join(c.WriteCloser.Close(), c.behind.Close()) }

// trailers passes on what came after the body.
func (x *exchange) trailers(trailer http.Header, announced []string) {
	own := x.w.Header()
	for name, values := range x.forAgent(trailer) {
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		own[name] = values
	}
}

// copy passes a body on piece by piece, each at once: events are small and nothing follows them.
func (x *exchange) copy(ctx context.Context, to io.Writer, body io.Reader) *end {
	flush := http.NewResponseController(x.w).Flush
	if err := flush(); err != nil {
		return x.cut(ctx, "the agent broke off")
	}
	buffer := copyBuffer{pool: &x.in.c.g.buffers}
	defer buffer.release()
	for {
		buf := buffer.bytes()
		n, err := body.Read(buf)
		if n > 0 {
			m, werr := to.Write(buf[:n])
			x.down += int64(m)
			if werr == nil {
				werr = flush()
			}
			if werr != nil {
				return x.cut(ctx, "the agent broke off")
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			if e := x.leaked.Load(); e != nil {
				return e
			}
			return x.cut(ctx, "the host broke off within its answer")
		}
		buffer.sized(n)
	}
}

// cut is why an answer was not completed.
func (x *exchange) cut(ctx context.Context, otherwise string) *end {
	switch {
	case x.in.ctx.Err() != nil:
		return cause(x.in.ctx)
	case ctx.Err() != nil:
		return broken(CodeBroken, "the agent broke off")
	}
	return broken(CodeBroken, otherwise)
}

// switched carries a WebSocket: from here on the connection is the host's and the agent's own.
func (x *exchange) switched(ctx context.Context, answer *http.Response) *end {
	host, ok := answer.Body.(io.ReadWriteCloser)
	if !ok || !x.upgrades() || !slices.Equal(tokens(answer.Header["Upgrade"]), []string{"websocket"}) {
		return x.refuse(fail(CodeProtocol, "the host switched to a protocol that nobody had asked for"))
	}
	agent, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return broken(CodeBroken, "the agent broke off")
	}
	defer agent.Close()
	x.record.Outcome, x.record.Status = Allowed, answer.StatusCode
	head := &http.Response{
		StatusCode: answer.StatusCode, Status: answer.Status, ProtoMajor: 1, ProtoMinor: 1, Header: x.forAgent(answer.Header),
	}
	head.Header["Connection"], head.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	if err := head.Write(agent); err != nil {
		return x.cut(ctx, "the agent broke off")
	}
	up := make(chan int64)
	go func() {
		n, _ := io.Copy(struct{ io.Writer }{host}, fromBoth(buffered.Reader, agent))
		_ = host.Close() // so that the other direction ends
		up <- n
	}()
	stop := context.AfterFunc(ctx, func() { _ = host.Close() })
	defer stop()
	x.down, _ = io.Copy(struct{ io.Writer }{agent}, host)
	_ = agent.Close()
	x.body.count.Store(<-up)
	if x.in.ctx.Err() != nil {
		return cause(x.in.ctx)
	}
	return nil
}

// fromBoth reads what was read ahead, and then the rest.
func fromBoth(ahead *bufio.Reader, rest io.Reader) io.Reader {
	return io.MultiReader(io.LimitReader(ahead, int64(ahead.Buffered())), rest)
}

// refusal is what a program, or the model that drives it, is told.
type refusal struct {
	Error  string `json:"error"`
	Code   string `json:"code"`
	Reason string `json:"reason"`
	Rule   string `json:"rule,omitempty"`
	Place  string `json:"place,omitempty"`
	Allow  string `json:"allow,omitempty"` // an item for network.allow that would let the request through
	Hint   string `json:"hint,omitempty"`
}

func (r refusal) encode() []byte {
	body, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("egress: encode a refusal: %v", err))
	}
	return append(body, '\n')
}

// refuse answers in the agent's own protocol, and returns e. The connection goes on.
func (x *exchange) refuse(e *end) *end {
	if e.outcome == Allowed { // nobody is there to read it
		x.begun = true
		return e
	}
	own := x.w.Header()
	clear(own)
	if x.refusePush(e) {
		return e
	}
	if kind, _, _ := strings.Cut(x.r.Header.Get("Content-Type"), ";"); kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+") {
		x.refuseGRPC(e)
		return e
	}
	said := refusal{Error: "refused by the policy of the sandbox", Code: string(e.code), Reason: e.reason, Rule: x.record.Rule}
	if x.record.Place.Line > 0 {
		said.Place = x.record.Place.String()
	}
	status := http.StatusForbidden
	switch {
	case e.outcome == Failed:
		said.Error, status = "the sandbox could not pass this on", http.StatusBadGateway
		if x.in.faulty() {
			own["Connection"] = []string{"close"} // a new one may find the host in a better state
		}
	case e.code == CodeBusy:
		status = http.StatusServiceUnavailable
	case e.code == CodeMismatch:
		status = http.StatusMisdirectedRequest
	default:
		explained := x.in.c.g.policy.Explain(x.question())
		if explained.Verdict.Code == e.code {
			said.Allow, said.Hint = explained.Add, explained.Hint
		}
	}
	x.record.Status = status
	body := said.encode()
	kind := "application/json"
	if x.plain { // git shows that line by line, behind "remote:"
		body, kind = []byte("agent-sandbox: "+e.reason+"\n"), "text/plain; charset=utf-8"
	}
	if x.plain && strings.HasSuffix(x.path, "/"+lfsBatch) {
		body, kind = lfsRefusal(e.reason)
	}
	own["Content-Type"], own["Cache-Control"] = []string{kind}, []string{"no-store"}
	own["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.w.WriteHeader(status)
	_, _ = x.w.Write(body)
	return e
}

// refuseGRPC is the same for a client that reads no bodies of errors: an answer of trailers alone.
func (x *exchange) refuseGRPC(e *end) {
	code := "7" // PERMISSION_DENIED
	if e.outcome == Failed || e.code == CodeBusy {
		code = "14" // UNAVAILABLE
	}
	own := x.w.Header()
	own["Content-Type"] = []string{"application/grpc"}
	own["Grpc-Status"] = []string{code}
	own["Grpc-Message"] = []string{url.PathEscape("refused by the policy of the sandbox: " + e.reason)}
	x.record.Status = http.StatusOK
	x.w.WriteHeader(http.StatusOK)
}
