package egress

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEcho: a host that repeats the credential in a body gets nothing inside, and the length that it told stays true.
func TestEcho(t *testing.T) {
	p := newPKI(t)
	b := p.backend("a.example", true, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gzip" {
			w.Header().Set("Content-Encoding", "gzip") // it isn't: nobody looks
		}
		sent := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		text := "you sent " + sent + " or " + base64.StdEncoding.EncodeToString([]byte("x:"+sent)) + "."
		if r.URL.Path == "/pieces" {
			for _, c := range []byte(text) {
				_, _ = w.Write([]byte{c})
				_ = http.NewResponseController(w).Flush()
			}
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		_, _ = io.WriteString(w, text)
	})
	for _, h2 := range []bool{false, true} {
		s := p.inspecting("  allow: [{host: a.example, port: %d, private: true}]\n", b.port, token(t, "a.example"))
		for _, path := range []string{"/", "/pieces"} {
			_, body := send(t, s.agent(h2), "GET", fmt.Sprintf("https://a.example:%d%s", b.port, path), "")
			core := base64.StdEncoding.EncodeToString([]byte("x:" + realToken))[4:30]
			if strings.Contains(body, realToken) || strings.Contains(body, core) || path == "/" && !strings.Contains(body, placeholder) || !strings.HasSuffix(body, ".") {
				t.Errorf("HTTP/2 %v, %s: %q", h2, path, body)
			}
		}
		// The control: what is not searched has it.
		if _, body := send(t, s.agent(h2), "GET", fmt.Sprintf("https://a.example:%d/gzip", b.port), "", "Accept-Encoding: gzip"); !strings.Contains(body, realToken) {
			t.Errorf("the test proves nothing: %q", body)
		}
	}
}

func TestUsage(t *testing.T) {
	p := newPKI(t)
	b := p.backend("a.example", true, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Accepted-GitHub-Permissions", r.URL.Query().Get("p"))
	})
	s := p.inspecting("  allow: [{host: a.example, port: %d, private: true}]\n", b.port, token(t, "a.example"))
	for _, permissions := range []string{"contents=write,workflows=write", "contents=read", "issues=write;%20pull_requests=write", "x%0Dy=read,a=owner", ""} {
		send(t, s.agent(true), "GET", fmt.Sprintf("https://a.example:%d/?p=%s", b.port, permissions), "")
	}
	want := []Usage{{
		Credential: "model", Requests: 5, PerHost: map[string]uint64{"a.example": 5},
		Permissions: map[string]string{"contents": "write", "workflows": "write"},
	}}
	if diff := cmp.Diff(want, s.g.Usage()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
