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

// lookup asks the runner whether name may be reached. An allowed name has an address if the type is one of an address that it has.
type lookup func(ctx context.Context, name, recordType string) (addr netip.Addr, allowed bool, err error)

// resolver answers DNS questions from the runner's verdicts alone; it never asks another server (RFC 1035).
type resolver struct {
	lookup lookup
	local  localNames
	slots  chan struct{}
	asking sync.WaitGroup // questions that are not answered

	ender
	listening sync.WaitGroup
	conns     []net.PacketConn
}

func newResolver(l lookup, local localNames) *resolver {
	return &resolver{lookup: l, local: local, slots: make(chan struct{}, maxQuestions)}
}

// localNames are the sandbox's own, which are nobody else's business: `localhost`, everything below it (RFC 6761, section 6.3),
// and the host name, which Java and others look up. Most programs find the first in /etc/hosts; few find the rest.
type localNames struct {
	hostname string
	ipv6     bool
}

func newLocalNames(ipv6 bool) localNames {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "" // then there is none to answer for
	}
	return localNames{strings.ToLower(hostname), ipv6}
}

// lookup answers for a local name; others are not known.
func (l localNames) lookup(name string, kind dnsmessage.Type) (addr netip.Addr, known bool) {
	if name != "localhost" && !strings.HasSuffix(name, ".localhost") && (name == "" || name != l.hostname) {
		return netip.Addr{}, false
	}
	switch {
	case kind == dnsmessage.TypeA:
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	case kind == dnsmessage.TypeAAAA && l.ipv6:
		return netip.IPv6Loopback(), true
	}
	return netip.Addr{}, true
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
	addr, allowed := r.local.lookup(name, q.Type)
	if !allowed {
		var err error
		if addr, allowed, err = r.lookup(ctx, name, strings.TrimPrefix(q.Type.String(), "Type")); err != nil {
			reply.RCode = dnsmessage.RCodeServerFailure
			return
		}
	}
	if !allowed {
		reply.RCode = dnsmessage.RCodeNameError
	}
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: answerTTL}
	switch {
	case allowed && q.Type == dnsmessage.TypeA && addr.Is4():
		reply.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}}}
	case allowed && q.Type == dnsmessage.TypeAAAA && addr.Is6():
		reply.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}}}
	default:
		reply.Authorities = []dnsmessage.Resource{authority()}
	}
}

// authority says for how long a program may remember that there is nothing (RFC 2308, section 3).
func authority() dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Class: dnsmessage.ClassINET, TTL: answerTTL},
		Body: &dnsmessage.SOAResource{
			NS: dnsmessage.MustNewName("sandbox.invalid."), MBox: dnsmessage.MustNewName("nobody.sandbox.invalid."),
			Serial: 1, Refresh: answerTTL, Retry: answerTTL, Expire: answerTTL, MinTTL: answerTTL,
		},
	}
}

// askRunner is the lookup over the link. An address is opened before anybody learns it; open is nil if there is no need.
func askRunner(s opener, open func(netip.Addr, []uint16) error) lookup {
	return func(ctx context.Context, name, recordType string) (netip.Addr, bool, error) {
		stream, err := s.Begin()
		if err != nil {
			return netip.Addr{}, false, err
		}
		defer stream.GiveUp()
		if err := stream.WriteHeader(link.Header{Purpose: link.Resolve, Name: name, Type: recordType}); err != nil {
			return netip.Addr{}, false, err
		}
		if deadline, ok := ctx.Deadline(); ok {
			if err := stream.SetReadDeadline(deadline); err != nil {
				return netip.Addr{}, false, err
			}
		}
		answer, err := stream.ReadAnswer()
		if err == nil && open != nil && answer.Addr.IsValid() {
			err = open(answer.Addr, answer.Ports)
		}
		return answer.Addr, answer.Allowed, err
	}
}
