package event

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestFoldRequests: single requests add up, totals replace each other, and refusals are told apart by what was asked for.
func TestFoldRequests(t *testing.T) {
	allowed := func(total bool, count uint64) Request {
		return Request{Total: total, Host: "a.example", Port: 443, Method: "GET", Path: "/x", Outcome: ConnectionAllowed, Rule: "a.example", Count: count}
	}
	refused := func(method, path, leak string, total bool, count uint64) Request {
		return Request{Total: total, Host: "a.example", Port: 443, Method: method, Path: path, Leak: leak, Outcome: ConnectionWasRefused, Reason: "no", Count: count}
	}
	f := NewFold("")
	for _, env := range envelopes(
		allowed(false, 1), allowed(false, 1), allowed(true, 4), allowed(true, 16),
		refused("POST", "/x", "", false, 1), refused("POST", "/x", "", false, 1), refused("GET", "/y", "model", false, 1),
		refused("", "", "", true, 8), refused("", "", "", true, 9),
		ConnectionRefused{Proto: "tcp", Address: "192.0.2.1", Port: 80, Leak: "model", Count: 2},
	) {
		f.add(env)
	}
	s := f.Summary()
	if s.Counts.Requests != 18 || s.Counts.RefusedRequests != 12 || s.Counts.RefusedConnections != 2 {
		t.Errorf("counts %+v", s.Counts)
	}
	var lines []string
	for _, r := range s.Refused {
		lines = append(lines, refusalText(r))
	}
	want := []string{"a.example:443/http (no) x9", "POST a.example/x (no) x2", "192.0.2.1:80 x2", "GET a.example/y (no)"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	leaks := []Leak{{"model", "192.0.2.1", 2}, {"model", "a.example", 1}}
	if diff := cmp.Diff(leaks, s.Leaks); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRequestLines(t *testing.T) {
	r := Request{Host: "a.example", Port: 443, Method: "GET", Path: "/\x1b[2J", Status: 200, Outcome: ConnectionAllowed, Count: 1}
	for outcome, want := range map[string]string{
		ConnectionAllowed: `request: GET a.example:443/\x1b[2J: 200`, ConnectionWasRefused: `refused: GET a.example:443/\x1b[2J`, ConnectionFailed: `failed: GET a.example:443/\x1b[2J`,
	} {
		r.Outcome = outcome
		if got := requestLine(r); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", outcome, got, want)
		}
	}
	r = Request{Total: true, Host: "a.example", Outcome: ConnectionAllowed, Count: 7}
	if got := requestLine(r); !strings.HasPrefix(got, "request: a.example: 7 more requests") {
		t.Errorf("a total: %q", got)
	}
}
