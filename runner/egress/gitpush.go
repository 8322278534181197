package egress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

const (
	// maxCommands bounds what is read of a push before it is decided, in bytes: ten thousand refs fit.
	maxCommands = 2 << 20
	// maxDrained bounds what is read of a push that was refused. git sends all of it before it reads the answer.
	maxDrained = 512 << 20
	// maxPacket is that of a packet with its length (gitprotocol-common(5)).
	maxPacket = 65520
)

// push is the part of a git-receive-pack request that says what is to become of refs (gitprotocol-pack(5), "Reference Update Request"). What
// follows, push options and the pack, is not looked at: it changes no other ref.
type push struct {
	refs         []string
	capabilities []string
	read         []byte // all that was taken from the body
}

// readPush reads up to the flush. Whatever is not as the protocol has it is refused: git could read it in another way.
func readPush(body io.Reader) (*push, error) {
	p := &push{}
	for {
		text, err := p.packet(body)
		switch {
		case err != nil:
			return nil, err
		case text == nil:
			return p, p.checkEnd(body)
		}
		if err := p.command(string(text)); err != nil {
			return nil, err
		}
	}
}

// packet is nil for a flush.
func (p *push) packet(body io.Reader) ([]byte, error) {
	head, err := p.take(body, 4)
	if err != nil {
		return nil, err
	}
	size, err := strconv.ParseUint(string(head), 16, 16)
	switch {
	case err != nil || strings.Trim(string(head), "0123456789abcdefABCDEF") != "":
		return nil, errors.New("a length is no number")
	case size == 0:
		return nil, nil
	case size <= 4 || size > maxPacket: // 1 to 3 mean something else elsewhere
		return nil, errors.New("a packet has a length that none has there")
	}
	return p.take(body, int(size)-4)
}

// take reads so many bytes and keeps them.
func (p *push) take(body io.Reader, n int) ([]byte, error) {
	if len(p.read)+n > maxCommands {
		return nil, fmt.Errorf("it has more than %d bytes of commands", maxCommands)
	}
	at := len(p.read)
	p.read = append(p.read, make([]byte, n)...)
	if _, err := io.ReadFull(body, p.read[at:]); err != nil {
		return nil, errors.New("it ends within its commands")
	}
	return p.read[at : at+n : at+n], nil
}

// checkEnd: without commands there is nothing more. git asks so whether it is let in, before it sends a large body.
func (p *push) checkEnd(body io.Reader) error {
	if len(p.refs) > 0 {
		return nil
	}
	if n, err := io.ReadFull(body, make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return errors.New("something follows where there are no commands")
	}
	return nil
}

// command reads "OLD NEW REF", in the first with capabilities behind a NUL, or "shallow ID".
func (p *push) command(text string) error {
	text, capabilities, first := strings.Cut(text, "\x00")
	text = strings.TrimSuffix(text, "\n")
	if id, shallow := strings.CutPrefix(text, "shallow "); shallow && !first && len(p.refs) == 0 && isObjectID(id) {
		return nil
	}
	parts := strings.SplitN(text, " ", 3)
	switch {
	case strings.HasPrefix(text, "push-cert"):
		return errors.New("signed pushes are not supported")
	case first != (len(p.refs) == 0), strings.ContainsAny(capabilities, "\x00"):
		return errors.New("its capabilities are not where they belong")
	case len(parts) != 3 || !isObjectID(parts[0]) || len(parts[0]) != len(parts[1]) || !isObjectID(parts[1]) || !isRef(parts[2]):
		return errors.New("it has something else than commands for refs")
	}
	if first {
		p.capabilities = strings.Fields(capabilities)
	}
	p.refs = append(p.refs, parts[2])
	return nil
}

func isObjectID(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// isRef refuses what git itself would, as far as somebody could read it as another ref.
func isRef(s string) bool {
	return strings.HasPrefix(s, "refs/") && !strings.Contains(s, "..") && !strings.Contains(s, "//") &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) })
}

func (p *push) can(capability string) bool {
	for _, c := range p.capabilities {
		if c == capability {
			return true
		}
	}
	return false
}

// checkPush reads what a push is to change, and decides. After it the body begins with what was read.
func (x *exchange) checkPush() *end {
	if x.scope == nil || !strings.HasSuffix(x.path, "/"+receivePack) || x.r.Method != http.MethodPost {
		return nil
	}
	if len(x.r.Header["Content-Encoding"]) > 0 {
		return refuse(CodeRef, "the push is encoded, and can't be read")
	}
	p, err := readPush(x.r.Body)
	if err != nil {
		return refuse(CodeRef, "the push can't be read: "+err.Error())
	}
	x.push, x.taken = p, p.read
	var others []string
	for _, ref := range p.refs {
		if !x.scope.mayPush(ref) {
			others = append(others, ref)
		}
	}
	if len(others) > 0 {
		return refuse(CodeRef, fmt.Sprintf("%s may not be pushed; allowed: %s", printable(strings.Join(others, ", ")), x.scope.allowed()))
	}
	return nil
}

// untaken is the body as it came, also where its beginning was read already.
func (x *exchange) untaken() io.ReadCloser {
	if x.taken == nil {
		return x.r.Body
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(x.taken), x.r.Body), x.r.Body}
}

// refusePush answers as a server would that has declined each ref, so that git shows the reason. It is false for a push that was not read.
func (x *exchange) refusePush(e *end) bool {
	if x.push == nil || e.code != CodeRef || !x.push.can("report-status") && !x.push.can("report-status-v2") {
		return false
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(x.r.Body, maxDrained))
	answer := x.push.report(e.reason)
	own := x.w.Header()
	own["Content-Type"], own["Cache-Control"] = []string{"application/x-git-receive-pack-result"}, []string{"no-store"}
	own["Content-Length"] = []string{strconv.Itoa(len(answer))}
	x.record.Status = http.StatusOK
	x.w.WriteHeader(http.StatusOK)
	_, _ = x.w.Write(answer)
	return true
}

// report is what git reads after a push (gitprotocol-pack(5), "Report Status").
func (p *push) report(reason string) []byte {
	var status bytes.Buffer
	status.Write(packet("unpack ok\n"))
	for _, ref := range p.refs {
		status.Write(packet("ng " + ref + " refused by the sandbox\n"))
	}
	status.WriteString("0000")
	if !p.can("side-band-64k") {
		return status.Bytes()
	}
	var out bytes.Buffer
	out.Write(packet("\x02agent-sandbox: " + reason + "\n"))
	for rest := status.Bytes(); len(rest) > 0; {
		n := min(len(rest), maxPacket-5)
		out.Write(packet("\x01" + string(rest[:n])))
		rest = rest[n:]
	}
	out.WriteString("0000")
	return out.Bytes()
}

func packet(text string) []byte {
	text = text[:min(len(text), maxPacket-4)]
	return fmt.Appendf(nil, "%04x%s", len(text)+4, text)
}
