package egress

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

// FuzzInspectedRequest: whatever the agent sends, the host reads one request at the most, for the name that was dialled and a path
// that the rules allow however it is decoded, with the runner's credential and no other.
func FuzzInspectedRequest(f *testing.F) {
	for _, seed := range []string{
		"GET /open/x?y#z HTTP/1.1\r\nHost: a.example\r\n\r\n",
		"GET /open/%2e%2e/closed HTTP/1.1\r\nHost: a.example:443\r\nAuthorization: Bearer " + placeholder + "\r\n\r\n",
		"POST /open/a%2Fb HTTP/1.1\r\nHost: A.Example.\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"GET //a.example/open/x HTTP/1.1\r\nHost: a.example\r\nConnection: Authorization\r\n\r\n",
		"GET https://a.example/open/x HTTP/1.1\r\nHost: b.example\r\nAuthorization: Basic eDp5\r\n\r\n",
		"GET /open/\\..\\x HTTP/1.1\r\nHost: a.example@b.example\r\nAUTHORIZATION : x\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	p := mustPolicy(f, "  allow: [{host: a.example, rules: [\"* /open/**\"]%s}]\n", "")
	g, err := New(Config{Policy: p, Recorder: newRecording(f), Credentials: []Credential{token(f, "a.example")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = g.Close() })
	target := mustHost(f, "a.example")
	c := &connection{
		g: g, verdict: g.policy.Decide(policy.Request{Host: "a.example", Port: 443}),
		record: Connection{Dialled: netip.MustParseAddrPort("28.4.0.1:443")},
	}
	in := &inspection{c: c, scheme: "https", bound: g.boundTo(target), ctx: context.Background()}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		x := &exchange{in: in, r: r}
		if x.decide() != nil {
			return
		}
		out, e := x.outgoing(t.Context())
		if e != nil {
			return
		}
		var sent bytes.Buffer
		if out.Write(&sent) != nil {
			return // a body that breaks off: the host waits for the rest
		}
		checkSent(t, sent.Bytes())
	})
}

func checkSent(t *testing.T, sent []byte) {
	t.Helper()
	br := bufio.NewReader(bytes.NewReader(sent))
	got, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("%q is no request: %v", sent, err)
	}
	if _, err := io.Copy(io.Discard, got.Body); err != nil {
		t.Fatalf("%q: %v", sent, err)
	}
	if rest, _ := io.ReadAll(br); len(rest) > 0 {
		t.Errorf("%q: %q follows the request", sent, rest)
	}
	name, _, _ := strings.Cut(strings.ToLower(got.Host), ":")
	if strings.TrimSuffix(name, ".") != "a.example" {
		t.Errorf("%q is for %q", sent, got.Host)
	}
	raw, _, _ := strings.Cut(got.RequestURI, "?")
	for range 3 { // a server may decode, and resolve dots, more than once
		if clean := path.Clean(strings.ReplaceAll(raw, "\\", "/")); clean != "/open" && !strings.HasPrefix(clean, "/open/") {
			t.Errorf("%q is for %q", sent, clean)
		}
		if raw, err = url.PathUnescape(raw); err != nil {
			break
		}
	}
	if auth := got.Header.Values("Authorization"); len(auth) != 1 || auth[0] != "Bearer "+realToken {
		t.Errorf("%q has the credentials %q", sent, auth)
	}
}

// FuzzScanner: a placeholder is found wherever it stands and however the stream is cut, as it is and in base64.
func FuzzScanner(f *testing.F) {
	f.Add([]byte("before"), []byte("after"), 3, 9)
	f.Add([]byte(placeholder[:20]), []byte{}, 22, 1)
	list := patterns([]Credential{token(f, "a.example")}, nil)
	f.Fuzz(func(t *testing.T, before, after []byte, first, second int) {
		plain := string(before) + placeholder + string(after)
		for _, text := range []string{plain, base64.StdEncoding.EncodeToString([]byte(plain)), base64.RawURLEncoding.EncodeToString([]byte(plain))} {
			s, found := newScanner(list), false
			for rest, size := []byte(text), first; len(rest) > 0; size = second {
				n := min(len(rest), 1+max(size, -size)%64)
				found = s.scan(rest[:n]) != "" || found
				rest = rest[n:]
			}
			if !found {
				t.Errorf("not found in %q, cut by %d and %d", text, first, second)
			}
		}
	})
}
