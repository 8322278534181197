package runnertest

import (
	"encoding/json"
	"net/http"
	"strings"
)

// gemini is the Gemini API (https://ai.google.dev/api/generate-content).
func (m *Model) gemini(w *stream, path string, body []byte) {
	var req struct {
		Contents []struct {
			Parts []struct {
				FunctionResponse *struct{ Name string }
			}
		}
		Tools []struct {
			FunctionDeclarations []struct{ Name string }
		}
		GenerationConfig struct{ ResponseMimeType string }
	}
	if err := json.Unmarshal(body, &req); err != nil {
		badRequest(w.w, err)
		return
	}
	results := 0
	for _, c := range req.Contents {
		for _, p := range c.Parts {
			if p.FunctionResponse != nil {
				results++
			}
		}
	}
	var offered []string
	for _, t := range req.Tools {
		for _, d := range t.FunctionDeclarations {
			offered = append(offered, d.Name)
		}
	}
	part := object{"text": m.Last}
	if call := m.next(results, offered); call != nil {
		part = object{"functionCall": object{"name": call.Tool, "args": call.Input}}
	} else if req.GenerationConfig.ResponseMimeType == "application/json" {
		part = object{"text": "{}"}
	}
	answer := object{
		"candidates":    []object{{"index": 0, "content": object{"role": "model", "parts": []object{part}}, "finishReason": "STOP"}},
		"usageMetadata": object{"promptTokenCount": 10, "candidatesTokenCount": 10, "totalTokenCount": 20},
	}
	switch {
	case strings.HasSuffix(path, ":streamGenerateContent"):
		w.event("", answer)
	case strings.HasSuffix(path, ":countTokens"):
		writeJSON(w.w, http.StatusOK, object{"totalTokens": 10})
	default:
		writeJSON(w.w, http.StatusOK, answer)
	}
}
