package egress

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

const openNetwork = "  allow: [{host: a.example, port: %[1]d, private: true}, {host: b.example, port: %[1]d, private: true, rules: [\"* /**\"]}]\n"

// keeper is a server that keeps the requests it gets.
type keeper struct {
	mu   sync.Mutex // guards seen
	seen []http.Header
	body []string
}

func (k *keeper) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen = append(k.seen, r.Header.Clone())
	k.body = append(k.body, string(body))
	for _, name := range []string{"X-Echo", "Location"} {
		w.Header().Set(name, "you sent "+r.Header.Get("Authorization")+r.Header.Get("X-Api-Key"))
	}
	w.Header().Set("Trailer", "X-Late")
	fmt.Fprint(w, "ok")
	w.Header().Set("X-Late", r.Header.Get("Authorization"))
}

func (k *keeper) all() []http.Header {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.seen)
}

// send makes a request with these headers ("Name: value") and body.
func send(t *testing.T, c *http.Client, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header[name] = append(req.Header[name], value)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(got)
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestCredentialIsAttached(t *testing.T) {
	for _, tt := range []struct {
		name    string
		change  func(*Credential)
		headers []string
		want    string // "Header: value" at the host; empty: refused
	}{
		{"nothing sent", nil, nil, "Authorization: Bearer " + realToken},
		{"the placeholder", nil, []string{"Authorization: Bearer " + placeholder}, "Authorization: Bearer " + realToken},
		{"another scheme", nil, []string{"Authorization: token " + placeholder}, "Authorization: Bearer " + realToken},
		{"password of Basic", nil, []string{"Authorization: " + basic("x", placeholder)}, "Authorization: Bearer " + realToken},
		{"user of Basic", nil, []string{"Authorization: " + basic(placeholder, "")}, "Authorization: Bearer " + realToken},
		{"in lower case", nil, []string{"authorization: Bearer " + placeholder}, "Authorization: Bearer " + realToken},
		{"basic", func(c *Credential) { c.Scheme, c.Username = Basic, "git" }, nil, "Authorization: " + basic("git", realToken)},
		{"raw", func(c *Credential) { c.Scheme, c.Header = Raw, "x-api-key" }, []string{"x-api-key: " + placeholder}, "X-Api-Key: " + realToken},
		{"one of its own", nil, []string{"Authorization: Bearer of-somebody-else"}, ""},
		{"Basic of its own", nil, []string{"Authorization: " + basic("x", "y")}, ""},
		{"two", nil, []string{"Authorization: Bearer " + placeholder, "Authorization: Bearer x"}, ""},
		{"value with a line break", func(c *Credential) { c.Value = fixed("a\r\nX-Evil: 1") }, nil, ""},
		{"no value", func(c *Credential) { c.Value = fixed("") }, nil, ""},
		{"value that can't be had", func(c *Credential) {
			c.Value = func(context.Context) (secret.Value, error) { return secret.Value{}, errors.New("the broker is down") }
		}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, k := newPKI(t), &keeper{}
			b := p.backend("a.example", true, k.serve)
			c := token(t, "a.example")
			if tt.change != nil {
				tt.change(&c)
			}
			s := p.inspecting(openNetwork, b.port, c)
			resp, body := send(t, s.agent(true), "GET", fmt.Sprintf("https://a.example:%d//any/../path", b.port), "", tt.headers...)
			seen := k.all()
			if tt.want == "" {
				if len(seen) > 0 || resp.StatusCode < 400 || !strings.Contains(body, `"code":"credential"`) {
					t.Errorf("%d %s; the host saw %v", resp.StatusCode, body, seen)
				}
				return
			}
			name, value, _ := strings.Cut(tt.want, ": ")
			if len(seen) != 1 || !slices.Equal(seen[0][name], []string{value}) {
				t.Fatalf("%d %s: the host saw %v, want %s", resp.StatusCode, body, seen, tt.want)
			}
			answered := fmt.Sprint(resp.Header, resp.Trailer)
			if strings.Contains(answered, realToken) || strings.Contains(answered, strings.TrimPrefix(value, "Basic ")) || !strings.Contains(answered, placeholder) {
				t.Errorf("the answer has the credential: %s", answered)
			}
		})
	}
}

// TestCredentialRules: the credential goes with the requests that its rules name, and the placeholder with no other.
func TestCredentialRules(t *testing.T) {
	p, k := newPKI(t), &keeper{}
	b := p.backend("a.example", true, k.serve)
	c := token(t, "a.example")
	rule, err := policy.ParseHTTPRule("GET /repos/acme/**")
	if err != nil {
		t.Fatal(err)
	}
	c.Rules = []policy.HTTPRule{rule}
	s := p.inspecting(openNetwork, b.port, c)
	agent, url := s.agent(true), fmt.Sprintf("https://a.example:%d", b.port)
	for i, tt := range []struct {
		method, path, header string
		status               int
		want                 string // at the host
	}{
		{"GET", "/repos/acme/x", "", 200, "Bearer " + realToken},
		{"POST", "/repos/acme/x", "", 200, ""},
		{"GET", "/repos/other/x", "", 200, ""},
		{"GET", "/repos/acme/../other/x", "", 200, ""},
		{"GET", "/repos/other/x", "Authorization: Bearer anonymous", 200, "Bearer anonymous"},
		{"GET", "/repos/other/x", "Authorization: Bearer " + placeholder, 403, ""},
	} {
		before := len(k.all())
		var headers []string
		if tt.header != "" {
			headers = []string{tt.header}
		}
		resp, _ := send(t, agent, tt.method, url+tt.path, "", headers...)
		seen := k.all()[before:]
		if resp.StatusCode != tt.status || tt.status == 200 && (len(seen) != 1 || seen[0].Get("Authorization") != tt.want) {
			t.Errorf("%d: %s %s %s: %d, the host saw %v", i, tt.method, tt.path, tt.header, resp.StatusCode, seen)
		}
	}
}

// TestCredentialStaysOnItsHost: another host gets neither the credential nor the placeholder.
func TestCredentialStaysOnItsHost(t *testing.T) {
	p, k := newPKI(t), &keeper{}
	b := p.backend("b.example", true, k.serve)
	s := p.inspecting(openNetwork, b.port, token(t, "a.example"))
	agent, url := s.agent(true), fmt.Sprintf("https://b.example:%d/", b.port)
	if resp, _ := send(t, agent, "POST", url, "harmless"); resp.StatusCode != 200 || len(k.all()) != 1 || k.all()[0].Get("Authorization") != "" {
		t.Fatalf("the positive control failed: %d, %v", resp.StatusCode, k.all())
	}
	tried, long := 0, strings.Repeat("x", 40<<10)
	for name, try := range map[string]func() (*http.Response, string){
		"header": func() (*http.Response, string) { return send(t, agent, "GET", url, "", "X-Any: is "+placeholder) },
		"Basic": func() (*http.Response, string) {
			return send(t, agent, "GET", url, "", "Authorization: "+basic("us", placeholder))
		},
		"path":  func() (*http.Response, string) { return send(t, agent, "GET", url+placeholder+"/x", "") },
		"query": func() (*http.Response, string) { return send(t, agent, "GET", url+"?t="+placeholder, "") },
		"body":  func() (*http.Response, string) { return send(t, agent, "POST", url, long+placeholder+long) },
		"base64 in a body": func() (*http.Response, string) {
			return send(t, agent, "POST", url, long+base64.URLEncoding.EncodeToString([]byte("x"+placeholder+"y"))+long)
		},
	} {
		tried++
		resp, body := try()
		if resp.StatusCode != 403 || !strings.Contains(body, `"code":"leak"`) {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
	}
	s.rec.request(1 + tried)
	for _, r := range s.rec.requests() { // in any order
		if leaked := r.Leak == "model" && r.Outcome == Refused && r.Code == CodeLeak; leaked == (r.Status == 200) {
			t.Errorf("record %+v", r)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if all := fmt.Sprint(k.seen, k.body); strings.Contains(all, placeholder) || strings.Contains(all, realToken) {
		t.Errorf("the host saw it: %s", all)
	}
}

// TestLeakInTheClear: without TLS there is no credential, on its own host neither.
func TestLeakInTheClear(t *testing.T) {
	backend := newSink(t)
	p := mustPolicy(t, "  allow: [{host: a.example, port: %[1]d, private: true}, {host: raw.example, port: %[1]d, private: true, tcp: true}]\n", backend.port)
	s := newSandboxWith(t, Config{Policy: p, Credentials: []Credential{token(t, "a.example")}}, map[string][]string{"a.example": {"127.0.0.1"}, "raw.example": {"127.0.0.1"}})
	for i, tt := range []struct{ host, text string }{
		{"a.example", "GET / HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer " + placeholder + "\r\n\r\n"},
		{"a.example", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 27\r\n\r\n-" + placeholder},
		{"a.example", "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + placeholder[:5] + "\r\n15\r\n" + placeholder[5:] + "\r\n0\r\n\r\n"},
		{"raw.example", "\x00user\x00" + placeholder},
	} {
		got, _ := s.talk(tt.host, backend.port, tt.text)
		if r := s.rec.ended(i + 1); r.Leak != "model" || r.Code != CodeLeak || r.Outcome != Refused {
			t.Errorf("%d: %q, record %+v", i, got, r)
		}
	}
	if _, err := s.talk("raw.example", backend.port, "harmless"); err != nil {
		t.Errorf("the positive control failed: %v", err)
	}
	if got := backend.bytes(5); strings.Contains(got, placeholder) || strings.Contains(got, realToken) || !strings.Contains(got, "harmless") {
		t.Errorf("the host got %q", got)
	}
}

func TestCredentialsThatNewRefuses(t *testing.T) {
	p := mustPolicy(t, "  allow: [{host: a.example, port: %d}]\n", 443)
	good := token(t, "a.example")
	other := good
	other.Name = "other"
	twice := good
	twice.Placeholder += "x"
	lists := map[string][]Credential{"same placeholder": {good, other}, "same name, another placeholder": {good, twice}}
	for name, change := range map[string]func(*Credential){
		"no name":              func(c *Credential) { c.Name = "" },
		"no value":             func(c *Credential) { c.Value = nil },
		"no hosts":             func(c *Credential) { c.Hosts = nil },
		"a host that is none":  func(c *Credential) { c.Hosts = []policy.Host{{}} },
		"no scheme":            func(c *Credential) { c.Scheme = NoScheme },
		"unknown scheme":       func(c *Credential) { c.Scheme = 9 },
		"short placeholder":    func(c *Credential) { c.Placeholder = "short" },
		"odd placeholder":      func(c *Credential) { c.Placeholder = "has/a/slash/and/is/long" },
		"user with colon":      func(c *Credential) { c.Username = "a:b" },
		"user with line break": func(c *Credential) { c.Username = "a\n" },
		"Host":                 func(c *Credential) { c.Header = "host" },
		"Transfer-Encoding":    func(c *Credential) { c.Header = "transfer-encoding" },
		"no token":             func(c *Credential) { c.Header = "a b" },
	} {
		c := good
		change(&c)
		lists[name] = []Credential{c}
	}
	for name, list := range lists {
		if _, err := New(Config{Policy: p, Recorder: newRecording(t), Credentials: list}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	g, err := New(Config{Policy: p, Recorder: newRecording(t), Credentials: []Credential{good}})
	if err != nil {
		t.Fatal(err)
	}
	_ = g.Close()
}

// TestScanner cuts a text in every place, and in three.
func TestScanner(t *testing.T) {
	list := patterns([]Credential{token(t, "a.example")}, nil)
	encoded := base64.StdEncoding.EncodeToString([]byte("ab" + placeholder + "c"))
	for _, text := range []string{"x" + placeholder + "y", placeholder, "Basic " + encoded, strings.Repeat("tok_", 30) + placeholder} {
		for i := range text {
			for _, j := range []int{i, min(i+1, len(text)), min(i+7, len(text))} {
				s := newScanner(list)
				found := s.scan([]byte(text[:i])) + s.scan([]byte(text[i:j])) + s.scan([]byte(text[j:]))
				if !strings.Contains(found, "model") {
					t.Errorf("%q in pieces at %d and %d: not found", text, i, j)
				}
			}
		}
		s := newScanner(list)
		for i := range len(text) {
			if s.scan([]byte(text[i:i+1])) != "" {
				s = nil
				break
			}
		}
		if s != nil {
			t.Errorf("%q byte by byte: not found", text)
		}
	}
	s := newScanner(list)
	if s.scan([]byte(placeholder[:20])) != "" || s.scan([]byte("-"+placeholder[20:])) != "" {
		t.Error("found what is not there")
	}
}
