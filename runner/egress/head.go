package egress

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/org/agent-sandbox/policy"
)

const (
	maxHead   = 64 << 10 // of a request, in bytes
	maxFields = 200
)

// errHead is a request that is not exactly as RFC 9112 has it. Whatever could be read in two ways is one: the host
// could read another request than the one that was checked.
type errHead string

func (e errHead) Error() string { return "the request is not passed on: " + string(e) }

type field struct{ name, value string }

func (f field) is(name string) bool { return strings.EqualFold(f.name, name) }

// request is the head of one HTTP/1 request that was checked.
type request struct {
	method, target string // target in origin-form, or "*"
	minor          int    // HTTP/1.x
	fields         []field
	host           string // the value of Host
	length         int64  // of the body; -1 for chunked
	upgrade        bool   // to a WebSocket
}

// readLine reads one line that ends in CR LF, without it. Whoever takes the line apart refuses control characters in it, such
// as a CR. Left is what the head may still have.
func readLine(br *bufio.Reader, left *int) (string, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		if *left -= len(part); *left < 0 {
			return "", errHead("a line, or the whole head, is too long")
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
	}
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		return "", errHead("a line does not end in CR LF")
	}
	return string(text), nil
}

// readFields reads field lines up to the empty line.
func readFields(br *bufio.Reader, left *int) ([]field, error) {
	var fields []field
	for {
		line, err := readLine(br, left)
		if err != nil || line == "" {
			return fields, err
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		switch {
		case !ok || !isToken(name): // also a continued line, and a blank before the colon
			return nil, errHead("a header has no proper name")
		case !isFieldValue(value):
			return nil, errHead("a header has a control character")
		case len(fields) == maxFields:
			return nil, errHead("it has too many headers")
		}
		fields = append(fields, field{name, value})
	}
}

// readRequest reads the head of a request and checks all that does not depend on the connection.
func readRequest(br *bufio.Reader) (*request, error) {
	left := maxHead
	line, err := readLine(br, &left)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !isToken(parts[0]) || !isTarget(parts[1]) || parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0" {
		return nil, errHead("its first line is not one of HTTP/1.0 or 1.1")
	}
	r := &request{method: parts[0], target: parts[1], minor: int(parts[2][7] - '0')}
	if slices.Contains([]string{"CONNECT", "TRACE", "TRACK", "PRI"}, strings.ToUpper(r.method)) {
		return nil, errHead(r.method + " is never passed on")
	}
	if r.fields, err = readFields(br, &left); err != nil {
		return nil, err
	}
	if err := r.readFraming(); err != nil {
		return nil, err
	}
	return r, r.readHost()
}

// values are the values of a header. A name with an underscore counts too: gateway interfaces take it for a hyphen.
func (r *request) values(name string) []string {
	var out []string
	for _, f := range r.fields {
		if strings.EqualFold(strings.ReplaceAll(f.name, "_", "-"), name) {
			out = append(out, f.value)
		}
	}
	return out
}

// readFraming finds out how the body is delimited (RFC 9112, section 6).
func (r *request) readFraming() error {
	codings, lengths := r.values("Transfer-Encoding"), r.values("Content-Length")
	switch {
	case len(codings)+len(lengths) > 1:
		return errHead("it says in more than one way how long its body is")
	case len(codings) == 1 && (r.minor == 0 || !strings.EqualFold(codings[0], "chunked")):
		return errHead("its body has a transfer coding other than chunked")
	case len(codings) == 1:
		r.length = -1
	case len(lengths) == 1:
		n, ok := parseLength(lengths[0])
		if !ok {
			return errHead("its length is no number")
		}
		r.length = n
	}
	for _, f := range r.fields {
		if strings.Contains(f.name, "_") && slices.ContainsFunc([]string{"transfer-encoding", "content-length"}, field{name: strings.ReplaceAll(f.name, "_", "-")}.is) {
			return errHead("a header has an underscore where a hyphen belongs")
		}
	}
	return nil
}

// parseLength wants digits alone: no sign, no blank, no list.
func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > 18 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// readHost wants exactly one Host, and the same in an absolute target, which becomes origin-form.
func (r *request) readHost() error {
	hosts := r.values("Host")
	if len(hosts) != 1 {
		return errHead(fmt.Sprintf("it has %d Host headers", len(hosts)))
	}
	r.host = hosts[0]
	switch {
	case strings.HasPrefix(r.target, "/"):
		return nil
	case r.target == "*" && r.method == "OPTIONS":
		return nil
	}
	const scheme = "http://"
	if len(r.target) < len(scheme) || !strings.EqualFold(r.target[:len(scheme)], scheme) {
		return errHead("its target is neither a path nor an http URL")
	}
	authority, path := r.target[len(scheme):], "/"
	if at := strings.IndexAny(authority, "/?"); at >= 0 {
		authority, path = authority[:at], authority[at:]
		if path[0] == '?' {
			path = "/" + path
		}
	}
	if !strings.EqualFold(authority, r.host) {
		return errHead("its target and its Host header name two hosts")
	}
	r.target = path
	return nil
}

// checkHost ties the Host header to the name and port that were dialled.
func (r *request) checkHost(target policy.Host, port uint16) *end {
	name, given, ok := splitHost(r.host)
	host, err := parseName(name)
	if !ok || err != nil || host != target || given != "" && given != strconv.Itoa(int(port)) {
		return refuse(CodeMismatch, fmt.Sprintf("the agent dialled %s, but its request is for %s", net.JoinHostPort(target.String(), strconv.Itoa(int(port))), printable(r.host)))
	}
	return nil
}

// splitHost takes the value of Host apart; brackets are for IPv6 addresses alone, and an empty port is none.
func splitHost(s string) (name, port string, ok bool) {
	if inner, bracketed := strings.CutPrefix(s, "["); bracketed {
		name, rest, closed := strings.Cut(inner, "]")
		addr, err := netip.ParseAddr(name)
		port, colon := strings.CutPrefix(rest, ":")
		return name, port, closed && err == nil && addr.Is6() && addr.Zone() == "" && (rest == "" || colon && port != "")
	}
	name, port, colon := strings.Cut(s, ":")
	return name, port, !strings.Contains(port, ":") && (!colon || port != "")
}

// normalize leaves of the headers that concern one connection (RFC 9110, section 7.6.1) only those whose effect is known, so that
// none makes the host drop or reread another.
func (r *request) normalize(first bool) {
	options := tokens(r.values("Connection"))
	upgrades := tokens(r.values("Upgrade"))
	r.upgrade = first && r.method == "GET" && r.minor == 1 && r.length == 0 &&
		slices.Contains(options, "upgrade") && slices.Equal(upgrades, []string{"websocket"})
	keep := r.fields[:0]
	for _, f := range r.fields {
		switch {
		case f.is("Connection"), f.is("Keep-Alive"), f.is("HTTP2-Settings"), f.is("Upgrade") && !r.upgrade,
			strings.HasPrefix(strings.ToLower(f.name), "proxy-"):
		default:
			keep = append(keep, f)
		}
	}
	r.fields = keep
	switch {
	case r.upgrade:
		r.fields = append(r.fields, field{"Connection", "Upgrade"})
	case slices.Contains(options, "close"):
		r.fields = append(r.fields, field{"Connection", "close"})
	case slices.Contains(options, "keep-alive"):
		r.fields = append(r.fields, field{"Connection", "keep-alive"})
	}
}

// tokens are the items of list headers, in lower case.
func tokens(values []string) []string {
	var out []string
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			out = append(out, strings.ToLower(strings.Trim(item, " \t")))
		}
	}
	return out
}

// bytes is the head as it is sent on.
func (r *request) bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.%d\r\n", r.method, r.target, r.minor)
	writeFields(&b, r.fields)
	return b.Bytes()
}

func writeFields(b *bytes.Buffer, fields []field) {
	for _, f := range fields {
		b.WriteString(f.name)
		b.WriteString(": ")
		b.WriteString(f.value)
		b.WriteString("\r\n")
	}
	b.WriteString("\r\n")
}

// isToken follows RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// isFieldValue follows RFC 9110, section 5.5.
func isFieldValue(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isTarget allows visible ASCII without a fragment.
func isTarget(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return s != ""
}
