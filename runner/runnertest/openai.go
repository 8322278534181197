package runnertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// responses is OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses-streaming).
func (m *Model) responses(w *stream, _ string, body []byte) {
	var req struct {
		Model  string
		Stream bool
		Tools  []responseTool
		Input  json.RawMessage
	}
	if err := json.Unmarshal(body, &req); err != nil {
		badRequest(w.w, err)
		return
	}
	var items []struct {
		Type  string
		Tools []responseTool // Codex offers its tools so to newer models
	}
	_ = json.Unmarshal(req.Input, &items) // a plain string has no results
	results, offered := 0, map[string]string{}
	offer(offered, "", req.Tools)
	for _, item := range items {
		if strings.HasSuffix(item.Type, "_call_output") {
			results++
		}
		offer(offered, "", item.Tools)
	}
	item := object{
		"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
		"content": []object{{"type": "output_text", "text": m.Last, "annotations": []object{}}},
	}
	if call := m.next(results, slices.Collect(maps.Keys(offered))); call != nil {
		id := fmt.Sprintf("call_%d", results)
		item = object{"type": "function_call", "id": "fc_" + id, "call_id": id, "name": call.Tool, "arguments": call.input(), "status": "completed"}
		if call.Text != "" {
			item = object{"type": "custom_tool_call", "id": "ctc_" + id, "call_id": id, "name": call.Tool, "input": call.Text, "status": "completed"}
		}
		if namespace := offered[call.Tool]; namespace != "" {
			item["namespace"] = namespace
		}
	}
	response := object{"id": "resp_1", "object": "response", "created_at": 1, "model": req.Model, "status": "completed", "output": []object{item}, "usage": object{
		"input_tokens": 10, "input_tokens_details": object{"cached_tokens": 0}, "output_tokens": 10,
		"output_tokens_details": object{"reasoning_tokens": 0}, "total_tokens": 20,
	}}
	if !req.Stream {
		writeJSON(w.w, http.StatusOK, response)
		return
	}
	m.streamResponse(w, response, item)
}

// responseTool is a tool, or a namespace of tools.
type responseTool struct {
	Type, Name string
	Tools      []responseTool
}

// offer notes the namespace of each tool by its name.
func offer(into map[string]string, namespace string, tools []responseTool) {
	for _, t := range tools {
		if t.Type == "namespace" {
			offer(into, t.Name, t.Tools)
			continue
		}
		into[t.Name] = namespace
	}
}

func (m *Model) streamResponse(w *stream, response, item object) {
	begun := object{"id": "resp_1", "object": "response", "created_at": 1, "model": response["model"], "status": "in_progress", "output": []object{}}
	w.event("response.created", object{"type": "response.created", "sequence_number": 0, "response": begun})
	w.event("response.output_item.added", object{"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": opened(item)})
	switch item["type"] {
	case "message":
		w.event("response.output_text.delta", object{
			"type": "response.output_text.delta", "sequence_number": 2, "output_index": 0, "content_index": 0, "item_id": item["id"], "delta": m.Last,
		})
	case "function_call":
		w.event("response.function_call_arguments.delta", object{
			"type": "response.function_call_arguments.delta", "sequence_number": 2, "output_index": 0, "item_id": item["id"], "delta": item["arguments"],
		})
	}
	w.event("response.output_item.done", object{"type": "response.output_item.done", "sequence_number": 3, "output_index": 0, "item": item})
	w.event("response.completed", object{"type": "response.completed", "sequence_number": 4, "response": response})
}

// opened is an item as it is announced: without what is still to come.
func opened(item object) object {
	out := object{}
	for k, v := range item {
		out[k] = v
	}
	out["status"] = "in_progress"
	for key, empty := range map[string]any{"content": []object{}, "arguments": "", "input": ""} {
		if _, ok := out[key]; ok {
			out[key] = empty
		}
	}
	return out
}

// chat is OpenAI's Chat Completions API (https://platform.openai.com/docs/api-reference/chat-streaming).
func (m *Model) chat(w *stream, _ string, body []byte) {
	var req struct {
		Model  string
		Stream bool
		Tools  []struct {
			Function struct{ Name string }
		}
		Messages []struct{ Role string }
	}
	if err := json.Unmarshal(body, &req); err != nil {
		badRequest(w.w, err)
		return
	}
	results := 0
	for _, msg := range req.Messages {
		if msg.Role == "tool" {
			results++
		}
	}
	var offered []string
	for _, t := range req.Tools {
		offered = append(offered, t.Function.Name)
	}
	message, reason := object{"role": "assistant", "content": m.Last}, "stop"
	if call := m.next(results, offered); call != nil {
		message, reason = object{"role": "assistant", "content": nil, "tool_calls": []object{{
			"index": 0, "id": fmt.Sprintf("call_%d", results), "type": "function", "function": object{"name": call.Tool, "arguments": call.input()},
		}}}, "tool_calls"
	}
	answer := object{"id": "chatcmpl-1", "created": 1, "model": req.Model, "usage": object{"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}}
	if !req.Stream {
		answer["object"], answer["choices"] = "chat.completion", []object{{"index": 0, "message": message, "finish_reason": reason}}
		writeJSON(w.w, http.StatusOK, answer)
		return
	}
	answer["object"], answer["choices"] = "chat.completion.chunk", []object{{"index": 0, "delta": message, "finish_reason": nil}}
	w.event("", answer)
	answer["choices"] = []object{{"index": 0, "delta": object{}, "finish_reason": reason}}
	w.event("", answer)
	w.end()
}
