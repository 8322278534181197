package guest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/org/agent-sandbox/runner/link"
)

const (
	// maxMessage is a DNS message over UDP with EDNS(0) (RFC 6891); larger datagrams are cut, and so refused.
	maxMessage = 4096
	// maxQuestions bounds the questions that are answered at once.
	maxQuestions = 256
	// answerTTL in seconds: an address stays the name's for the life of the run, so programs may cache.
	answerTTL = 60
	// lookupTimeout is shorter than the five seconds after which libc asks again (resolv.conf(5)).
	lookupTimeout = 4 * time.Second
)

// lookup asks the runner whether name may be reached; the zero address means that it may not.
type lookup func(ctx context.Context, name, recordType string) (netip.Addr, error)

// resolver answers DNS questions from the runner's verdicts alone; it never asks another server (RFC 1035).
type resolver struct {
	lookup lookup
	slots  chan struct{}
	asking sync.WaitGroup // questions that are not answered

	ender
	listening sync.WaitGroup
	conns     []net.PacketConn
}

func newResolver(l lookup) *resolver {
	return &resolver{lookup: l, slots: make(chan struct{}, maxQuestions)}
}

// start serves a socket until it is closed, or finish has been called.
func (r *resolver) start(ctx context.Context, conn net.PacketConn) {
	r.conns = append(r.conns, conn)
	r.listening.Go(func() { r.serve(ctx, conn) })
}

// finish asks the runner about the names that are still to be read, and then reads no more.
func (r *resolver) finish() {
	for _, c := range r.conns {
		r.end(c.SetReadDeadline)
	}
	r.listening.Wait()
	waitFor(&r.asking)
}

// serve answers until conn is closed.
func (r *resolver) serve(ctx context.Context, conn net.PacketConn) {
	for {
		buf := make([]byte, maxMessage)
		r.deadline(conn.SetReadDeadline, time.Time{})
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		r.slots <- struct{}{}
		r.asking.Go(func() {
			defer func() { <-r.slots }()
			ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
			defer cancel()
			if answer, ok := r.answer(ctx, buf[:n]); ok {
				_, _ = conn.WriteTo(answer, from)
			}
		})
	}
}

// answer makes the reply to one message, or none for what is not a question.
func (r *resolver) answer(ctx context.Context, msg []byte) ([]byte, bool) {
	var p dnsmessage.Parser
	header, err := p.Start(msg)
	if err != nil || header.Response {
		return nil, false
	}
	reply := dnsmessage.Message{Header: dnsmessage.Header{
		ID: header.ID, Response: true, OpCode: header.OpCode,
		RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
	}}
	questions, err := p.AllQuestions()
	switch {
	case err != nil || len(questions) != 1:
		reply.RCode = dnsmessage.RCodeFormatError
	case header.OpCode != 0 || questions[0].Class != dnsmessage.ClassINET:
		reply.RCode = dnsmessage.RCodeNotImplemented
	default:
		reply.Questions = questions
		r.resolve(ctx, questions[0], &reply)
	}
	packed, err := reply.Pack()
	return packed, err == nil
}

func (r *resolver) resolve(ctx context.Context, q dnsmessage.Question, reply *dnsmessage.Message) {
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	addr, err := r.lookup(ctx, name, strings.TrimPrefix(q.Type.String(), "Type"))
	switch {
	case err != nil:
		reply.RCode = dnsmessage.RCodeServerFailure
	case !addr.IsValid():
		reply.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA && addr.Is4():
		reply.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: answerTTL},
			Body:   &dnsmessage.AResource{A: addr.As4()},
		}}
	}
}

// askRunner is the lookup over the link.
func askRunner(s *link.Session) lookup {
	return func(ctx context.Context, name, recordType string) (netip.Addr, error) {
		stream, err := s.Open(link.Header{Purpose: link.Resolve, Name: name, Type: recordType})
		if err != nil {
			return netip.Addr{}, err
		}
		defer stream.Close()
		if deadline, ok := ctx.Deadline(); ok {
			if err := stream.SetReadDeadline(deadline); err != nil {
				return netip.Addr{}, err
			}
		}
		answer, err := stream.ReadAnswer()
		if err != nil || !answer.Allowed {
			return netip.Addr{}, err
		}
		return answer.Addr, nil
	}
}
