// Package runnertest has servers that speak the protocols of others, for tests alone: nothing else may import it. They answer by
// a script, and check and keep what they were sent.
package runnertest

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// maxRequest bounds a request in bytes; agents send their whole conversation each time.
const maxRequest = 16 << 20

// Call is one use of a tool that the model asks its agent for.
type Call struct {
	Tool  string
	Input map[string]any
	// Text is the input of a tool that takes text in place of an object (OpenAI's custom tools).
	Text string
}

// Model is a model provider's API with a scripted model behind it: Anthropic's Messages, OpenAI's Responses and Chat Completions,
// and Gemini's generateContent, each streaming or not. The model asks for one call after the other, each when the result of
// the one before has come, and then says Last. A request that offers no such tool, as for a title of the session, gets Last at once.
type Model struct {
	Key    string // the credential that every request must carry
	Script []Call
	Last   string

	mu       sync.Mutex
	requests []Request // guarded by mu
}

// Request is one that was sent to a [Model].
type Request struct {
	Method, Path string
	Credential   string // what the request carries, wherever its API wants it
	Body         string
	Header       http.Header
}

// Start serves with this certificate on a port of loopback, for as long as the test lives, and returns its address.
func (m *Model) Start(t testing.TB, cert tls.Certificate) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: m, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return l.Addr().String()
}

// Requests are those that came so far.
func (m *Model) Requests() []Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Request(nil), m.requests...)
}

// ServeHTTP implements http.Handler.
func (m *Model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return
	}
	req := Request{Method: r.Method, Path: r.URL.Path, Credential: credentialOf(r.Header), Body: string(body), Header: r.Header.Clone()}
	m.mu.Lock()
	m.requests = append(m.requests, req)
	m.mu.Unlock()
	if req.Credential != m.Key {
		w.Header().Set("X-Should-Retry", "false") // Anthropic's clients go by it
		writeJSON(w, http.StatusUnauthorized, map[string]any{"type": "error", "error": map[string]any{
			"type": "authentication_error", "code": "invalid_api_key", "message": "invalid API key",
		}})
		return
	}
	if answer := m.answers(r.URL.Path); answer != nil && r.Method == http.MethodPost {
		answer(&stream{w: w}, r.URL.Path, body)
		return
	}
	writeJSON(w, http.StatusNotFound, map[string]any{"type": "error", "error": map[string]any{"type": "not_found_error", "message": "not found"}})
}

// credentialOf finds the credential where one of the APIs has it.
func credentialOf(h http.Header) string {
	for _, name := range []string{"X-Api-Key", "X-Goog-Api-Key"} {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return strings.TrimPrefix(h.Get("Authorization"), "Bearer ")
}

// answers finds the API of a path.
func (m *Model) answers(path string) func(w *stream, path string, body []byte) {
	switch {
	case path == "/v1/messages":
		return m.messages
	case path == "/v1/responses":
		return m.responses
	case strings.HasSuffix(path, "/v1/chat/completions"):
		return m.chat
	case strings.HasPrefix(path, "/v1beta/models/"):
		return m.gemini
	}
	return nil
}

// next is the call that follows after so many results, if the request offers its tool.
func (m *Model) next(results int, offered []string) *Call {
	if results >= len(m.Script) {
		return nil
	}
	for _, name := range offered {
		if name == m.Script[results].Tool {
			return &m.Script[results]
		}
	}
	return nil
}

// input is the call's input as JSON.
func (c *Call) input() string {
	if c.Text != "" {
		return c.Text
	}
	b, err := json.Marshal(c.Input)
	if err != nil {
		panic("runnertest: bug: an input that is no JSON: " + err.Error())
	}
	return string(b)
}

// stream writes server-sent events, each of them at once.
type stream struct {
	w       http.ResponseWriter
	started bool
}

func (s *stream) event(name string, data any) {
	if !s.started {
		s.w.Header().Set("Content-Type", "text/event-stream")
		s.started = true
	}
	b, err := json.Marshal(data)
	if err != nil {
		panic("runnertest: bug: an event that is no JSON: " + err.Error())
	}
	if name != "" {
		fmt.Fprintf(s.w, "event: %s\n", name)
	}
	fmt.Fprintf(s.w, "data: %s\n\n", b)
	if f, ok := s.w.(http.Flusher); ok {
		f.Flush()
	}
}

func (s *stream) end() { fmt.Fprint(s.w, "data: [DONE]\n\n") }

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// Whoever asked has gone, if this fails.
	_ = json.NewEncoder(w).Encode(v)
}

// badRequest answers what is no request of the API.
func badRequest(w http.ResponseWriter, err error) {
	writeJSON(w, http.StatusBadRequest, map[string]any{"error": map[string]any{"message": err.Error()}})
}
