package egress

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Plain HTTP is not spliced: each request on a connection could be for another host. Requests are taken apart, checked and
// written anew one after the other; the host's answers, which decide nothing here, are copied as they come.

// maxChunkLine bounds a line of the chunked coding, extensions included.
const maxChunkLine = 4 << 10

// beginHTTP checks the first request.
func (c *connection) beginHTTP(ctx context.Context) (stage, *end) {
	first, e := c.nextRequest(ctx, true)
	if e != nil {
		return nil, e
	}
	return func(ctx context.Context) *end { return c.forward(ctx, first) }, nil
}

// nextRequest reads the head of a request and ties it to the name that was dialled.
func (c *connection) nextRequest(ctx context.Context, first bool) (*request, *end) {
	r, err := readRequest(c.fromClient)
	var bad errHead
	switch {
	case errors.As(err, &bad):
		return nil, refuse(CodeProtocol, bad.Error())
	case err != nil:
		return nil, c.opening(ctx, err)
	}
	c.record.ServerName = cut(r.host)
	if e := c.g.checks.host(r, c.verdict.Target, c.record.Dialled.Port()); e != nil {
		return nil, e
	}
	r.normalize(first)
	c.record.Requests++
	return r, nil
}

// forward carries a connection of plain HTTP from its first request on.
func (c *connection) forward(ctx context.Context, r *request) *end {
	if r.upgrade {
		switched, e := c.upgrade(r)
		switch {
		case e != nil:
			return e
		case switched:
			return c.splice(ctx)
		}
		return c.both(ctx, func() error { return c.requests(ctx) })
	}
	return c.both(ctx, func() error {
		if e := c.send(r); e != nil {
			return e
		}
		return c.requests(ctx)
	})
}

// requests passes on all that follow the first.
func (c *connection) requests(ctx context.Context) error {
	for {
		if _, err := c.fromClient.Peek(1); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return broken(CodeBroken, "the agent broke off")
		}
		lift := c.await(ctx)
		r, e := c.nextRequest(ctx, false)
		lift()
		if e == nil {
			e = c.send(r)
		}
		if e != nil {
			return e
		}
	}
}

// send writes a request with its body.
func (c *connection) send(r *request) *end {
	if _, err := c.up.Write(r.bytes()); err != nil {
		return asEnd(err, broken(CodeBroken, "the host broke off"))
	}
	if r.length < 0 {
		return c.sendChunks()
	}
	return c.sendBytes(r.length)
}

// sendBytes passes on exactly n bytes.
func (c *connection) sendBytes(n int64) *end {
	if n == 0 {
		return nil
	}
	body := &io.LimitedReader{R: c.fromClient, N: n}
	err := c.copy(c.up, body, "the host broke off", "the agent broke off")
	if err == nil && body.N > 0 {
		err = broken(CodeBroken, "the agent broke off within a request")
	}
	if err != nil {
		return asEnd(err, nil)
	}
	return nil
}

// sendChunks passes on a chunked body (RFC 9112, section 7.1), without the extensions of its chunks.
func (c *connection) sendChunks() *end {
	for {
		left := maxChunkLine
		line, err := readLine(c.fromClient, &left)
		if err != nil {
			return badBody(err)
		}
		size, ok := parseChunkSize(line)
		if !ok {
			return refuse(CodeProtocol, errHead("the size of a chunk is no number").Error())
		}
		if size == 0 {
			return c.sendTrailers()
		}
		if e := c.frameChunk(fmt.Sprintf("%x\r\n", size)); e != nil {
			return e
		}
		if e := c.sendBytes(size); e != nil {
			return e
		}
		left = len("\r\n") // so that only the empty line fits, and a chunk that is longer than it says is refused
		if _, err := readLine(c.fromClient, &left); err != nil {
			return badBody(err)
		}
		if e := c.frameChunk("\r\n"); e != nil {
			return e
		}
	}
}

// frameChunk writes what stands between the chunks past the search for placeholders, which could else be cut in two by it.
func (c *connection) frameChunk(text string) *end {
	if _, err := c.up.writeTo(c.up.to, []byte(text)); err != nil {
		return asEnd(err, broken(CodeBroken, "the host broke off"))
	}
	return nil
}

// parseChunkSize reads the size and leaves the extension; blanks before it are refused, since they were never meant to be there.
func parseChunkSize(line string) (int64, bool) {
	digits, extension, _ := strings.Cut(line, ";")
	if digits == "" || len(digits) > 15 || strings.Trim(digits, "0123456789abcdefABCDEF") != "" || !isFieldValue(extension) {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 16, 64)
	return n, err == nil
}

// sendTrailers ends a chunked body. Trailers that would frame or route the message anew are refused.
func (c *connection) sendTrailers() *end {
	left := maxHead
	fields, err := readFields(c.fromClient, &left)
	if err != nil {
		return badBody(err)
	}
	trailer := &request{fields: fields}
	for _, name := range []string{"Host", "Transfer-Encoding", "Content-Length", "Connection", "Upgrade", "Trailer", "TE"} {
		if len(trailer.values(name)) > 0 {
			return refuse(CodeProtocol, errHead("its trailers have "+name).Error())
		}
	}
	b := bytes.NewBufferString("0\r\n")
	writeFields(b, fields)
	if _, err := c.up.Write(b.Bytes()); err != nil {
		return asEnd(err, broken(CodeBroken, "the host broke off"))
	}
	return nil
}

func badBody(err error) *end {
	var bad errHead
	if errors.As(err, &bad) {
		return refuse(CodeProtocol, bad.Error())
	}
	return broken(CodeBroken, "the agent broke off within a request")
}

// upgrade sends the request for a WebSocket and reports whether the host has switched. Until then nothing more of the
// client is passed on: a host that ignores the request would take it for further requests, which nobody had checked.
func (c *connection) upgrade(r *request) (bool, *end) {
	if _, err := c.up.Write(r.bytes()); err != nil {
		return false, asEnd(err, broken(CodeBroken, "the host broke off"))
	}
	br := bufio.NewReader(c.upstream)
	c.fromUpstream = br
	for {
		status, head, err := readStatus(br)
		if err != nil {
			return false, broken(CodeBroken, "the host gave no answer that makes sense")
		}
		if _, err := c.down.Write(head); err != nil {
			return false, asEnd(err, broken(CodeBroken, "the agent broke off"))
		}
		if status == 101 || status >= 200 {
			return status == 101, nil
		}
	}
}

// readStatus reads the head of one answer.
func readStatus(br *bufio.Reader) (status int, head []byte, err error) {
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		head = append(head, line...)
		if len(head) > maxHead {
			return 0, nil, errHead("its head is too long")
		}
		if text := strings.TrimRight(string(line), "\r\n"); status == 0 {
			if len(text) < 12 || !strings.HasPrefix(text, "HTTP/1.") {
				return 0, nil, errHead("it is no answer of HTTP/1")
			}
			if status, err = strconv.Atoi(text[9:12]); err != nil || status < 100 {
				return 0, nil, errHead("it has no status")
			}
		} else if text == "" {
			return status, head, nil
		}
	}
}

// forbidden is what the client gets for a first request that is not passed on.
func forbidden(e *end, record Connection) []byte {
	body := refusal{Error: "refused by the policy of the sandbox", Code: string(e.code), Reason: e.reason, Rule: record.Rule}.encode()
	head := fmt.Sprintf("HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: %d\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n", len(body))
	return append([]byte(head), body...)
}
