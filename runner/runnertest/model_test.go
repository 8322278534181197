package runnertest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestModel: each API gives the calls of the script one after the other, as results come in, and streams them.
func TestModel(t *testing.T) {
	script := []Call{{Tool: "edit", Input: map[string]any{"path": "a"}}, {Tool: "free", Text: "some text"}}
	for name, tt := range map[string]struct {
		path, header, value string
		body                string // RESULTS stands for the results so far
		result              string
		calls               []string // what the answers have, from no result on
	}{
		"messages": {
			"/v1/messages", "X-Api-Key", "key",
			`{"model": "m", "stream": true, "tools": [{"name": "edit"}, {"name": "free"}], "messages": [{"content": "hi"}, {"content": [RESULTS]}]}`,
			`{"type": "tool_result"}`,
			[]string{`"name":"edit"`, `"name":"free"`, `"text":"The end"`},
		},
		"responses": {
			"/v1/responses", "Authorization", "Bearer key",
			`{"model": "m", "stream": true, "input": [{"type": "message", "tools": [{"type": "namespace", "name": "space", "tools": [{"name": "edit"}, {"name": "free"}]}]}, RESULTS]}`,
			`{"type": "function_call_output"}`,
			[]string{`"arguments":"{\"path\":\"a\"}"`, `"type":"custom_tool_call"`, `"delta":"The end"`},
		},
		"chat": {
			"/api/v1/chat/completions", "Authorization", "Bearer key",
			`{"model": "m", "stream": true, "tools": [{"function": {"name": "edit"}}, {"function": {"name": "free"}}], "messages": [{"role": "user"}, RESULTS]}`,
			`{"role": "tool"}`,
			[]string{`"name":"edit"`, `"name":"free"`, `"content":"The end"`},
		},
		"gemini": {
			"/v1beta/models/m:streamGenerateContent", "X-Goog-Api-Key", "key",
			`{"contents": [{"parts": [{"text": "hi"}, RESULTS]}], "tools": [{"functionDeclarations": [{"name": "edit"}, {"name": "free"}]}]}`,
			`{"functionResponse": {"name": "edit"}}`,
			[]string{`"name":"edit"`, `"name":"free"`, `"text":"The end"`},
		},
	} {
		m := &Model{Key: "key", Script: script, Last: "The end"}
		ask := func(body, value string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodPost, tt.path, strings.NewReader(body))
			r.Header.Set(tt.header, value)
			w := httptest.NewRecorder()
			m.ServeHTTP(w, r)
			return w
		}
		for n, want := range tt.calls {
			results := strings.TrimSuffix(strings.Repeat(tt.result+",", n), ",")
			if n == 0 {
				results = "{}"
			}
			w := ask(strings.Replace(tt.body, "RESULTS", results, 1), tt.value)
			if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/event-stream" || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s after %d results: %d without %s:\n%s", name, n, w.Code, want, w.Body)
			}
		}
		if w := ask(strings.ReplaceAll(strings.Replace(tt.body, "RESULTS", "{}", 1), `"edit"`, `"other"`), tt.value); !strings.Contains(w.Body.String(), "The end") {
			t.Errorf("%s without the tool:\n%s", name, w.Body)
		}
		if w := ask("{", tt.value); w.Code != http.StatusBadRequest {
			t.Errorf("%s: no JSON: %d", name, w.Code)
		}
		if w := ask("{}", "another"); w.Code != http.StatusUnauthorized || m.Requests()[len(m.Requests())-1].Credential != "another" {
			t.Errorf("%s with another key: %d", name, w.Code)
		}
	}
}
