package event

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Request is a request on a connection that is looked into ("request"), when it has ended. With Total it stands for many, and
// replaces an earlier total of the same host, port, outcome and rule.
type Request struct {
	Connection uint64 `json:"connection"` // the ID of its connection; 0 if that has no event of its own
	Total      bool   `json:"total,omitempty"`

	Host   string `json:"host"`
	Port   uint16 `json:"port"`
	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"`   // without the query
	Status int    `json:"status,omitempty"` // that the sandbox got; 0 when it got none

	Outcome string `json:"outcome"` // of [Connection]
	Code    string `json:"code"`    // a stable word for the reason
	Reason  string `json:"reason"`
	Rule    string `json:"rule"`           // that decided, as an item of the policy file
	Line    string `json:"line,omitempty"` // of the rule, such as "GET /v1/**"
	Place   string `json:"place"`          // of the rule, as file:line:column
	Add     string `json:"add,omitempty"`  // as in ConnectionRefused
	Leak    string `json:"leak,omitempty"` // the credential whose placeholder was on its way to where it is never attached

	Up       int64         `json:"up"` // bytes of the bodies, or of a WebSocket
	Down     int64         `json:"down"`
	Start    time.Time     `json:"start"`
	Duration time.Duration `json:"duration_ns"`
	Count    uint64        `json:"count"` // requests in this record
}

// protoHTTP is the protocol of a refused request.
const protoHTTP = "http"

// Leak counts how often the placeholder of a credential was on its way to a host where the credential is never attached. It was
// not passed on.
type Leak struct {
	Credential string `json:"credential"`
	Host       string `json:"host"`
	Count      uint64 `json:"count"`
}

// requests folds the requests that are no refusals.
type requests struct {
	ended  uint64
	totals map[target]uint64
}

func (rs *requests) add(r Request) {
	if !r.Total {
		rs.ended += r.Count
		return
	}
	if rs.totals == nil {
		rs.totals = map[target]uint64{}
	}
	key := target{proto: r.Outcome, address: r.Host, port: r.Port, name: r.Rule, qtype: r.Line}
	if _, known := rs.totals[key]; known || len(rs.totals) < maxConnections {
		rs.totals[key] = r.Count
	}
}

func (rs *requests) sum() uint64 {
	n := rs.ended
	for _, count := range rs.totals {
		n += count
	}
	return n
}

// request adds one to the summary.
func (f *Fold) request(r Request) {
	if r.Outcome != ConnectionWasRefused {
		f.requests.add(r)
		return
	}
	refusal := Refusal{Proto: protoHTTP, Name: r.Host, Port: r.Port, Method: r.Method, Path: r.Path, Reason: r.Reason, Add: r.Add, Leak: r.Leak, Count: r.Count}
	t := target{proto: protoHTTP, port: r.Port, name: r.Host, qtype: r.Method + " " + r.Path}
	if r.Total {
		t.address = r.Rule + " " + r.Line
	} else {
		refusal.Count += f.refused[t].Count // each was refused by itself
	}
	f.refuse(t, refusal)
}

// sumLeaks has a line for each credential and host.
func (s *Summary) sumLeaks(refused []Refusal) {
	s.Leaks = []Leak{}
	at := map[Leak]int{}
	for _, r := range refused {
		if r.Leak == "" {
			continue
		}
		key := Leak{Credential: r.Leak, Host: cmp.Or(r.Name, r.Address)}
		i, seen := at[key]
		if !seen {
			if len(s.Leaks) >= maxListed {
				continue
			}
			i = len(s.Leaks)
			at[key] = i
			s.Leaks = append(s.Leaks, key)
		}
		s.Leaks[i].Count += r.Count
	}
}

// requestLine is what `-v` shows.
func requestLine(r Request) string {
	text := clip(r.Method, 12) + " " + clip(net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port)))+r.Path, reportWidth)
	switch {
	case r.Total:
		text = clip(r.Host, reportWidth/2) + ": " + counted(r.Count, "more request")
	case r.Outcome == ConnectionWasRefused:
		return "refused: " + text + " (" + clip(r.Reason, reportWidth/2) + ")"
	case r.Outcome == ConnectionFailed:
		return "failed: " + text + " (" + clip(r.Reason, reportWidth/2) + ")"
	}
	return fmt.Sprintf("request: %s: %d, after %s", text, r.Status, Span(r.Duration))
}

func leakText(l Leak) string {
	return fmt.Sprintf("the placeholder of %s was on its way to %s: it was refused", clip(l.Credential, 40), clip(l.Host, reportWidth/2)) + times(l.Count)
}

func times(n uint64) string {
	if n < 2 {
		return ""
	}
	return fmt.Sprintf(", %d times", n)
}
