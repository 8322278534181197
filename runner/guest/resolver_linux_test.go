package guest

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// answers is a resolver for which some names are allowed, and one fails.
func answers(asked *[]string) *resolver {
	return newResolver(func(_ context.Context, name, recordType string) (netip.Addr, bool, error) {
		if asked != nil {
			*asked = append(*asked, name+" "+recordType)
		}
		switch name {
		case "allowed.example":
			if recordType != "A" {
				return netip.Addr{}, true, nil
			}
			return netip.MustParseAddr("203.0.113.5"), true, nil
		case "six.example":
			return netip.MustParseAddr("2001:db8::5"), true, nil
		case "broken.example":
			return netip.Addr{}, false, errors.New("no runner")
		default:
			return netip.Addr{}, false, nil
		}
	}, localNames{hostname: "sandbox", ipv6: true})
}

func question(t *testing.T, name string, kind dnsmessage.Type, alter func(*dnsmessage.Message)) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	if alter != nil {
		alter(&m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestResolverAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		kind   dnsmessage.Type
		alter  func(*dnsmessage.Message)
		rcode  dnsmessage.RCode
		answer string // A record; empty for none
		asked  string
	}{
		{"allowed.example.", dnsmessage.TypeA, nil, dnsmessage.RCodeSuccess, "203.0.113.5", "allowed.example A"},
		{"ALLOWED.Example.", dnsmessage.TypeA, nil, dnsmessage.RCodeSuccess, "203.0.113.5", "allowed.example A"},
		{"allowed.example.", dnsmessage.TypeAAAA, nil, dnsmessage.RCodeSuccess, "", "allowed.example AAAA"}, // and no error: the name exists
		{"allowed.example.", dnsmessage.TypeTXT, nil, dnsmessage.RCodeSuccess, "", "allowed.example TXT"},
		{"allowed.example.", dnsmessage.Type(999), nil, dnsmessage.RCodeSuccess, "", "allowed.example 999"},
		{"allowed.example.", dnsmessage.Type(65), nil, dnsmessage.RCodeSuccess, "", "allowed.example HTTPS"},
		{"six.example.", dnsmessage.TypeA, nil, dnsmessage.RCodeSuccess, "", "six.example A"},
		{"six.example.", dnsmessage.TypeAAAA, nil, dnsmessage.RCodeSuccess, "2001:db8::5", "six.example AAAA"},
		{"localhost.", dnsmessage.TypeA, nil, dnsmessage.RCodeSuccess, "127.0.0.1", ""},
		{"app.Localhost.", dnsmessage.TypeAAAA, nil, dnsmessage.RCodeSuccess, "::1", ""},
		{"localhost.", dnsmessage.TypeMX, nil, dnsmessage.RCodeSuccess, "", ""},
		{"Sandbox.", dnsmessage.TypeA, nil, dnsmessage.RCodeSuccess, "127.0.0.1", ""},
		{"notlocalhost.", dnsmessage.TypeA, nil, dnsmessage.RCodeNameError, "", "notlocalhost A"},
		{"localhost.example.", dnsmessage.TypeA, nil, dnsmessage.RCodeNameError, "", "localhost.example A"},
		{"denied.example.", dnsmessage.TypeAAAA, nil, dnsmessage.RCodeNameError, "", "denied.example AAAA"},
		{"denied.example.", dnsmessage.TypeA, nil, dnsmessage.RCodeNameError, "", "denied.example A"},
		{".", dnsmessage.TypeNS, nil, dnsmessage.RCodeNameError, "", " NS"},
		{"broken.example.", dnsmessage.TypeA, nil, dnsmessage.RCodeServerFailure, "", "broken.example A"},
		{"allowed.example.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.OpCode = 4 }, dnsmessage.RCodeNotImplemented, "", ""},
		{"allowed.example.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }, dnsmessage.RCodeNotImplemented, "", ""},
		{"allowed.example.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }, dnsmessage.RCodeFormatError, "", ""},
		{"allowed.example.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Questions = nil }, dnsmessage.RCodeFormatError, "", ""},
	} {
		var asked []string
		b, ok := answers(&asked).answer(t.Context(), question(t, tt.name, tt.kind, tt.alter))
		var m dnsmessage.Message
		if err := m.Unpack(b); !ok || err != nil {
			t.Errorf("%s %s: no answer (%v)", tt.name, tt.kind, err)
			continue
		}
		got := ""
		for _, a := range m.Answers {
			switch r := a.Body.(type) {
			case *dnsmessage.AResource:
				got += netip.AddrFrom4(r.A).String()
			case *dnsmessage.AAAAResource:
				got += netip.AddrFrom16(r.AAAA).String()
			}
		}
		if !m.Response || m.ID != 4711 || m.RCode != tt.rcode || got != tt.answer {
			t.Errorf("%s %s: %s with %q, want %s with %q", tt.name, tt.kind, m.RCode, got, tt.rcode, tt.answer)
		}
		// A negative answer says how long it holds, any other has no such thing.
		none := tt.answer == "" && (tt.rcode == dnsmessage.RCodeSuccess || tt.rcode == dnsmessage.RCodeNameError)
		if soa := len(m.Authorities) == 1 && m.Authorities[0].Header.Type == dnsmessage.TypeSOA; soa != none {
			t.Errorf("%s %s: the authority is %+v", tt.name, tt.kind, m.Authorities)
		}
		if want := tt.asked; len(asked) > 1 || want == "" && len(asked) > 0 || want != "" && asked[0] != want {
			t.Errorf("%s %s: the runner was asked for %q, want %q", tt.name, tt.kind, asked, want)
		}
	}
}

// TestResolverKeepsQuiet: an answer to an answer would go round and round.
func TestResolverKeepsQuiet(t *testing.T) {
	response := question(t, "allowed.example.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Response = true })
	for _, b := range [][]byte{nil, {1, 2, 3}, response} {
		if got, ok := answers(nil).answer(t.Context(), b); ok {
			t.Errorf("%x was answered with %x", b, got)
		}
	}
}

// FuzzResolver: whatever the agent asks, the answer is well-formed, belongs to the question, and gives away no address
// that the runner did not name.
func FuzzResolver(f *testing.F) {
	for _, name := range []string{"allowed.example.", "denied.example.", "app.localhost.", "."} {
		b, err := (&dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 1},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		}).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		b, ok := answers(nil).answer(t.Context(), msg)
		if !ok {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil {
			t.Fatalf("%x was answered with %x: %v", msg, b, err)
		}
		if !m.Response || m.ID != uint16(msg[0])<<8|uint16(msg[1]) || len(m.Answers) > 1 || len(m.Additionals) > 0 || len(m.Authorities) > 1 {
			t.Errorf("%x was answered with %+v", msg, m)
		}
		for _, a := range m.Answers {
			known := false
			switch r := a.Body.(type) {
			case *dnsmessage.AResource:
				known = r.A == [4]byte{203, 0, 113, 5} || r.A == [4]byte{127, 0, 0, 1}
			case *dnsmessage.AAAAResource:
				addr := netip.AddrFrom16(r.AAAA)
				known = addr == netip.MustParseAddr("2001:db8::5") || addr == netip.IPv6Loopback()
			}
			if !known {
				t.Errorf("%x was answered with %+v", msg, a)
			}
		}
		if len(b) > maxMessage {
			t.Errorf("an answer of %d bytes to a question of %d", len(b), len(msg))
		}
	})
}
