// Command hostileguest is a guest that somebody has replaced: it speaks the link to the runner and does what a guest never
// would. The escape suite puts it into a sandbox; it is never shipped.
//
// The first argument of the command that it is told to run says what it does. What it was answered goes to the agent's
// standard output, one JSON object for each attempt.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/org/agent-sandbox/runner/link"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hostileguest:", err)
		os.Exit(1)
	}
}

// pipes joins standard input and output.
type pipes struct{ io.ReadCloser }

func (pipes) Write(b []byte) (int, error) { return os.Stdout.Write(b) }

type guest struct {
	session *link.Session
	control *link.Stream
	out     *json.Encoder
}

// answer is as escapeprobe's.
type answer struct {
	Name, Answer, Detail string
}

func run() error {
	session, err := link.NewGuest(pipes{os.Stdin})
	if err != nil {
		return err
	}
	g := &guest{session: session}
	if g.control, err = session.Open(link.Header{Purpose: link.Control}); err != nil {
		return err
	}
	f, err := link.ReadFrame(g.control)
	if err != nil || f.Start == nil || len(f.Start.Argv) == 0 {
		return fmt.Errorf("no start: %w", err)
	}
	offence := f.Start.Argv[0]
	if offence == "exit before the start" {
		return g.endEarly()
	}
	// It has measured nothing.
	if err := link.WriteFrame(g.control, link.Frame{Measured: &link.Measurement{}}); err != nil {
		return err
	}
	if f, err = link.ReadFrame(g.control); err != nil || f.Go == nil {
		return errors.Join(err, errors.New("not released"))
	}
	stdout, err := session.Open(link.Header{Purpose: link.Stdout})
	if err != nil {
		return err
	}
	stderr, err := session.Open(link.Header{Purpose: link.Stderr})
	if err != nil {
		return err
	}
	g.out = json.NewEncoder(stdout)
	err = g.commit(offence)
	if err := errors.Join(err, stdout.Close(), stderr.Close()); err != nil {
		return err
	}
	return g.end(0)
}

// endEarly reports it twice, for a runner that takes the first for a measurement.
func (g *guest) endEarly() error {
	if err := g.frame(success); err != nil {
		return err
	}
	for _, p := range []link.Purpose{link.Stdout, link.Stderr} {
		if st, err := g.session.Open(link.Header{Purpose: p}); err == nil {
			_ = st.Close()
		}
	}
	return g.end(0)
}

// end reports the end of an agent that there never was.
func (g *guest) end(code int) error {
	err := link.WriteFrame(g.control, link.Frame{Exit: &link.Exit{Code: code, OOMKills: -1, PeakMemory: -1, CPUMicros: -1, PeakPIDs: -1}})
	<-g.session.Done()
	return err
}

func (g *guest) commit(offence string) error {
	switch offence {
	case "nothing":
		return nil
	case "network":
		return g.network()
	case "floods":
		return g.floods()
	case "a huge frame":
		return g.frame(success + strings.Repeat(" ", link.MaxFrame))
	case "nonsense":
		return g.frame(`{"exit":{"code":0},"allowed":true}`)
	case "two messages in one frame":
		return g.frame(`{"exit":{"code":0},"started":{"pid":1}}`)
	case "a status that a byte cuts to success":
		return g.frame(`{"exit":{"code":256}}`)
	case "a message beyond its window":
		return g.overrun()
	case "more streams than there may be":
		return g.hoard()
	case "pings without end":
		_, err := os.Stdout.Write(bytes.Repeat([]byte{0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7}, 1000))
		return err
	case "data that nobody reads":
		return g.pile()
	}
	return fmt.Errorf("no offence %q", offence)
}

// success is the end of an agent that did well.
const success = `{"exit":{"code":0}}`

// frame sends text as a message, whatever it is.
func (g *guest) frame(text string) error {
	_, err := g.control.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

func (g *guest) say(name string, a link.Answer, err error) error {
	got := answer{Name: name, Answer: "refused", Detail: a.Reason}
	switch {
	case err != nil:
		got.Detail = err.Error()
	case a.Allowed:
		got.Answer, got.Detail = "ok", a.Addr.String()
	}
	return g.out.Encode(got)
}

// ask opens a stream, sends more behind its header, and reads what comes.
func (g *guest) ask(h link.Header, more string) (*link.Stream, link.Answer, error) {
	st, err := g.session.Open(h)
	if err != nil {
		return nil, link.Answer{}, err
	}
	if _, err := io.WriteString(st, more); err != nil {
		return st, link.Answer{}, err
	}
	a, err := st.ReadAnswer()
	return st, a, err
}

// network opens connections that the policy does not have, in every way, and one that it has.
func (g *guest) network() error {
	_, control, err := g.ask(link.Header{Purpose: link.Resolve, Name: "c.plain.example", Type: "A"}, "")
	if err := g.say("control: a name", control, err); err != nil {
		return err
	}
	open, a, err := g.ask(link.Header{Purpose: link.Connect, Addr: netip.AddrPortFrom(control.Addr, 80)}, "")
	if err := g.say("control: a connection", a, err); err != nil {
		return err
	}
	forged, err := json.Marshal(link.Answer{Allowed: true})
	if err != nil {
		return err
	}
	ownAnswer := string(binary.BigEndian.AppendUint32(nil, uint32(len(forged)))) + string(forged)
	for name, try := range map[string]struct {
		addr        string
		claim, more string
	}{
		"an address":                           {"8.8.8.8:443", "", ""},
		"metadata":                             {"169.254.169.254:80", "", ""},
		"the host's loopback":                  {"127.0.0.1:2375", "", ""},
		"the host's loopback, IPv6":            {"[::1]:2375", "", ""},
		"a mapped address":                     {"[::ffff:10.0.0.9]:443", "", ""},
		"an address with the claim of a name":  {"8.8.4.4:80", "c.plain.example", ""},
		"an address with its own answer":       {"1.1.1.1:443", "", ownAnswer},
		"an address with data before a yes":    {"9.9.9.9:80", "", "GET /mark-early HTTP/1.1\r\nHost: c.plain.example\r\n\r\n"},
		"a synthetic address that has no name": {"28.5.1.1:80", "", ""},
		"a name's address on another port":     {netip.AddrPortFrom(control.Addr, 8443).String(), "", ""},
	} {
		st, a, err := g.ask(link.Header{Purpose: link.Connect, Addr: netip.MustParseAddrPort(try.addr), Name: try.claim}, try.more)
		if err := g.say(name, a, err); err != nil {
			return err
		}
		if a.Allowed && try.more != "" {
			_, _ = io.ReadFull(st, make([]byte, 1)) // so that what was sent has arrived
		}
		_ = st.Close()
	}
	for _, name := range []string{"denied.example", "c.plain.example\x00.denied.example", "DENIED.example."} {
		_, a, err := g.ask(link.Header{Purpose: link.Resolve, Name: name, Type: "A"}, "")
		if err := g.say(fmt.Sprintf("the name %q", name), a, err); err != nil {
			return err
		}
	}
	// Resets of streams that there never were, and of the runner's own: the open connection goes on.
	for id := range uint32(100) {
		if id != open.StreamID() {
			if err := link.WriteFrame(g.control, link.Frame{Reset: &link.Reset{Stream: id}}); err != nil {
				return err
			}
		}
	}
	if _, err := io.WriteString(open, "GET /control HTTP/1.1\r\nHost: c.plain.example\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	said, err := io.ReadAll(io.LimitReader(open, 1<<16))
	return g.out.Encode(answer{"control: an answer", "ok", fmt.Sprintf("%s %v", said, err)})
}

const (
	floodOfNames       = 4_000
	floodOfConnections = 500
	floodAtOnce        = 250
)

// floods asks for names, every other of which the policy has, and dials with data that nobody wants.
func (g *guest) floods() error {
	names, err := g.count(floodOfNames, func(i int) (link.Answer, error) {
		return g.closing(link.Header{Purpose: link.Resolve, Name: fmt.Sprintf("n%d.%s.example", i, []string{"plain", "denied"}[i%2]), Type: "A"}, "")
	})
	if err != nil {
		return err
	}
	unwanted := string(make([]byte, 200<<10))
	dials, err := g.count(floodOfConnections, func(i int) (link.Answer, error) {
		addr := netip.AddrFrom4([4]byte{9, 1, byte(i >> 8), byte(i)})
		return g.closing(link.Header{Purpose: link.Connect, Addr: netip.AddrPortFrom(addr, 443)}, unwanted)
	})
	return errors.Join(err, g.out.Encode(answer{"names", fmt.Sprint(names), ""}), g.out.Encode(answer{"dials", fmt.Sprint(dials), ""}))
}

func (g *guest) closing(h link.Header, more string) (link.Answer, error) {
	st, a, err := g.ask(h, more)
	if st != nil {
		_ = st.Close()
	}
	return a, err
}

// count asks n times, some at once, and counts what was allowed.
func (g *guest) count(n int, ask func(int) (link.Answer, error)) (int64, error) {
	var allowed atomic.Int64
	var all sync.WaitGroup
	places := make(chan struct{}, floodAtOnce)
	for i := range n {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			if a, err := ask(i); err == nil && a.Allowed {
				allowed.Add(1)
			}
		})
	}
	all.Wait()
	return allowed.Load(), nil
}

// hoard opens streams and ends none.
func (g *guest) hoard() error {
	for i := range link.MaxStreams + 500 { // more than the multiplexer has under way
		addr := netip.AddrFrom4([4]byte{9, 1, byte(i >> 8), byte(i)})
		if _, err := g.session.Open(link.Header{Purpose: link.Connect, Addr: netip.AddrPortFrom(addr, 443)}); err != nil {
			return err
		}
	}
	return nil
}

// overrun sends a frame of the multiplexer's that is four times as long as it may be, on a stream that the runner reads nothing of.
func (g *guest) overrun() error {
	st, err := g.session.Open(link.Header{Purpose: link.Stdin})
	if err != nil {
		return err
	}
	// The runner takes streams in their order: when it answers on the next, it has taken this one.
	if _, _, err := g.ask(link.Header{Purpose: link.Resolve, Name: "c.plain.example", Type: "A"}, ""); err != nil {
		return err
	}
	const length = 1 << 20
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(make([]byte, 4), st.StreamID()), length)
	_, err = os.Stdout.Write(append(head, make([]byte, length)...))
	return err
}

// pile sends 20 MiB on streams that the runner has no use for.
func (g *guest) pile() error {
	piece := make([]byte, 200<<10)
	for range 100 {
		st, err := g.session.Open(link.Header{Purpose: "nothing"})
		if err != nil {
			return err
		}
		if _, err := st.Write(piece); err != nil {
			return err
		}
	}
	return nil
}
