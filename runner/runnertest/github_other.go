package runnertest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

func otherEndpoints() []endpoint {
	return []endpoint{
		{"GET /rate_limit", byToken, "", func(c *call) {
			core := map[string]any{"limit": c.g.cfg.RateLimit, "remaining": c.g.cfg.RateLimit - c.g.used[strings.TrimPrefix(credentialOf(c.r.Header), "token ")]}
			c.answer(200, map[string]any{"resources": map[string]any{"core": core}, "rate": core})
		}},
		{"GET /repos/{owner}/{repo}/issues", byToken, "issues=read", (*call).listIssues},
		{"POST /repos/{owner}/{repo}/issues", byToken, "issues=write", (*call).createIssue},
		{"POST /repos/{owner}/{repo}/issues/{number}/comments", byToken, "issues=write", (*call).comment},
		{"POST /repos/{owner}/{repo}/attestations", byToken, "attestations=write", (*call).attest},
		{"GET /repos/{owner}/{repo}/attestations/{digest}", byToken, "attestations=read", (*call).attestations},
	}
}

func (c *call) listIssues() {
	r := c.repository("issues", "read")
	if r == nil {
		return
	}
	labels := c.r.URL.Query().Get("labels")
	list := slices.DeleteFunc(slices.Clone(r.issues), func(i map[string]any) bool {
		return labels != "" && !slices.ContainsFunc(i["labels"].([]any), func(l any) bool { return l.(map[string]any)["name"] == labels })
	})
	c.answer(200, append([]map[string]any{}, list...))
}

func (c *call) createIssue() {
	r := c.repository("issues", "write")
	var req struct {
		Title, Body string
		Labels      []string
		Assignees   []string
	}
	if r == nil || !c.read(&req) {
		return
	}
	if req.Title == "" {
		c.fail(http.StatusUnprocessableEntity, "Validation Failed")
		return
	}
	labels := []any{}
	for _, l := range req.Labels {
		labels = append(labels, map[string]any{"name": l})
	}
	number := len(r.pulls) + len(r.issues) + 1
	issue := map[string]any{
		"number": number, "id": c.g.id(), "state": "open", "title": req.Title, "body": req.Body, "labels": labels,
		"html_url": c.g.URL + "/" + r.FullName() + "/issues/" + itoa(number), "created_at": c.g.now().Format(time.RFC3339),
	}
	r.issues = append(r.issues, issue)
	c.answer(http.StatusCreated, issue)
}

func (c *call) comment() {
	r := c.repository("issues", "write")
	var req struct{ Body string }
	if r == nil || !c.read(&req) {
		return
	}
	for _, list := range [][]map[string]any{r.issues, r.pulls} {
		for _, i := range list {
			if i["number"] == atoi(c.value("number")) {
				comments, _ := i["comments_list"].([]string)
				i["comments_list"] = append(comments, req.Body)
				c.answer(http.StatusCreated, map[string]any{"id": c.g.id(), "body": req.Body})
				return
			}
		}
	}
	c.fail(http.StatusNotFound, "Not Found")
}

// attest stores a sigstore bundle under the digests of its statement's subjects.
func (c *call) attest() {
	r := c.repository("attestations", "write")
	var req struct {
		Bundle struct {
			MediaType    string `json:"mediaType"`
			DSSEEnvelope struct {
				Payload     []byte `json:"payload"`
				PayloadType string `json:"payloadType"`
			} `json:"dsseEnvelope"`
		} `json:"bundle"`
	}
	if r == nil {
		return
	}
	var statement struct {
		Subject []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	err := json.Unmarshal(c.body, &req)
	if err == nil {
		err = json.Unmarshal(req.Bundle.DSSEEnvelope.Payload, &statement)
	}
	if err != nil || len(statement.Subject) == 0 || !strings.HasPrefix(req.Bundle.MediaType, "application/vnd.dev.sigstore.bundle") {
		c.fail(http.StatusUnprocessableEntity, "Invalid bundle")
		return
	}
	var raw struct {
		Bundle json.RawMessage `json:"bundle"`
	}
	_ = json.Unmarshal(c.body, &raw) // it was valid a moment ago
	id := c.g.id()
	for _, s := range statement.Subject {
		r.attestations = append(r.attestations, map[string]any{"id": id, "digest": "sha256:" + s.Digest["sha256"], "bundle": raw.Bundle, "repository_id": r.ID})
	}
	c.answer(http.StatusCreated, map[string]any{"id": id})
}

func (c *call) attestations() {
	r := c.repository("attestations", "read")
	if r == nil {
		return
	}
	list := []any{}
	for _, a := range r.attestations {
		if a["digest"] == c.value("digest") {
			list = append(list, map[string]any{"bundle": a["bundle"], "repository_id": r.ID})
		}
	}
	if len(list) == 0 {
		c.fail(http.StatusNotFound, "Not Found")
		return
	}
	c.answer(200, map[string]any{"attestations": list})
}
