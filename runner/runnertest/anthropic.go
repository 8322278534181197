package runnertest

import (
	"encoding/json"
	"fmt"
	"net/http"
)

type object = map[string]any

// messages is Anthropic's Messages API (https://docs.anthropic.com/en/api/messages-streaming).
func (m *Model) messages(w *stream, _ string, body []byte) {
	var req struct {
		Model    string
		Stream   bool
		Tools    []struct{ Name string }
		Messages []struct{ Content json.RawMessage }
	}
	if err := json.Unmarshal(body, &req); err != nil {
		badRequest(w.w, err)
		return
	}
	results := 0
	for _, msg := range req.Messages {
		var blocks []struct{ Type string }
		_ = json.Unmarshal(msg.Content, &blocks) // a plain string has no results
		for _, b := range blocks {
			if b.Type == "tool_result" {
				results++
			}
		}
	}
	var offered []string
	for _, t := range req.Tools {
		offered = append(offered, t.Name)
	}
	block, reason := object{"type": "text", "text": m.Last}, "end_turn"
	call := m.next(results, offered)
	if call != nil {
		block, reason = object{"type": "tool_use", "id": fmt.Sprintf("toolu_%d", results), "name": call.Tool, "input": call.Input}, "tool_use"
	}
	message := object{
		"id": "msg_1", "type": "message", "role": "assistant", "model": req.Model, "content": []object{block},
		"stop_reason": reason, "stop_sequence": nil, "usage": object{"input_tokens": 10, "output_tokens": 10},
	}
	if !req.Stream {
		writeJSON(w.w, http.StatusOK, message)
		return
	}
	m.streamMessage(w, message, block, call)
}

func (m *Model) streamMessage(w *stream, message, block object, call *Call) {
	reason := message["stop_reason"]
	message["content"], message["stop_reason"] = []object{}, nil
	delta := object{"type": "text_delta", "text": m.Last}
	start := object{"type": "text", "text": ""}
	if call != nil {
		delta = object{"type": "input_json_delta", "partial_json": call.input()}
		start = object{"type": "tool_use", "id": block["id"], "name": call.Tool, "input": object{}}
	}
	w.event("message_start", object{"type": "message_start", "message": message})
	w.event("content_block_start", object{"type": "content_block_start", "index": 0, "content_block": start})
	w.event("content_block_delta", object{"type": "content_block_delta", "index": 0, "delta": delta})
	w.event("content_block_stop", object{"type": "content_block_stop", "index": 0})
	w.event("message_delta", object{
		"type": "message_delta", "delta": object{"stop_reason": reason, "stop_sequence": nil}, "usage": object{"output_tokens": 10},
	})
	w.event("message_stop", object{"type": "message_stop"})
}
