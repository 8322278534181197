package runnertest

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/json"
	"maps"
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
		{"PATCH /repos/{owner}/{repo}/issues/{number}", byToken, "issues=write", (*call).changeIssue},
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
	query := c.r.URL.Query()
	labels, state, creator := query.Get("labels"), cmp.Or(query.Get("state"), "open"), query.Get("creator")
	list := slices.DeleteFunc(slices.Clone(r.issues), func(i map[string]any) bool {
		if state != "all" && i["state"] != state || creator != "" && i["user"].(map[string]any)["login"] != creator {
			return true
		}
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
		"user": map[string]any{"login": c.token.login()},
	}
	r.issues = append(r.issues, issue)
	c.answer(http.StatusCreated, issue)
}

// login is who acts with the token.
func (t *Token) login() string {
	if t.Installation != 0 {
		return "github-actions[bot]"
	}
	return "somebody"
}

// Issues are those of the repository, open or closed, as the API shows them.
func (r *Repository) Issues() []map[string]any {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	var all []map[string]any
	for _, i := range r.issues {
		all = append(all, maps.Clone(i))
	}
	return all
}

func (c *call) changeIssue() {
	r := c.repository("issues", "write")
	var req struct{ Title, Body, State *string }
	if r == nil || !c.read(&req) {
		return
	}
	for _, i := range r.issues {
		if i["number"] != atoi(c.value("number")) {
			continue
		}
		for name, value := range map[string]*string{"title": req.Title, "body": req.Body, "state": req.State} {
			if value != nil {
				i[name] = *value
			}
		}
		c.answer(http.StatusOK, i)
		return
	}
	c.fail(http.StatusNotFound, "Not Found")
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
		Bundle json.RawMessage `json:"bundle"`
	}
	if r == nil || !c.read(&req) {
		return
	}
	digests, problem := subjectsOf(req.Bundle)
	if problem != "" {
		c.fail(http.StatusUnprocessableEntity, "Invalid bundle: "+problem)
		return
	}
	id := c.g.id()
	for _, digest := range digests {
		r.attestations = append(r.attestations, map[string]any{"id": id, "digest": digest, "bundle": req.Bundle, "repository_id": r.ID})
	}
	c.answer(http.StatusCreated, map[string]any{"id": id})
}

// sigstoreBundle is what a bundle of version 0.3 has, when a certificate signed it
// (https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto). Every key is known.
type sigstoreBundle struct {
	MediaType            string `json:"mediaType"`
	VerificationMaterial struct {
		Certificate struct {
			RawBytes []byte `json:"rawBytes"`
		} `json:"certificate"`
		TlogEntries               []json.RawMessage `json:"tlogEntries"`
		TimestampVerificationData struct {
			RFC3161Timestamps []struct {
				SignedTimestamp []byte `json:"signedTimestamp"`
			} `json:"rfc3161Timestamps"`
		} `json:"timestampVerificationData"`
	} `json:"verificationMaterial"`
	DSSEEnvelope struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			Sig   []byte `json:"sig"`
			KeyID string `json:"keyid"`
		} `json:"signatures"`
	} `json:"dsseEnvelope"`
}

// subjectsOf are the digests that a bundle is about, and what is wrong with its shape.
func subjectsOf(bundle []byte) (digests []string, problem string) {
	var b sigstoreBundle
	d := json.NewDecoder(bytes.NewReader(bundle))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return nil, err.Error()
	}
	var statement struct {
		Type    string `json:"_type"`
		Subject []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	m := b.VerificationMaterial
	_, certErr := x509.ParseCertificate(m.Certificate.RawBytes)
	switch {
	case b.MediaType != "application/vnd.dev.sigstore.bundle.v0.3+json":
		return nil, "media type " + b.MediaType
	case certErr != nil:
		return nil, "certificate: " + certErr.Error()
	case len(m.TlogEntries)+len(m.TimestampVerificationData.RFC3161Timestamps) == 0:
		return nil, "neither a log's entry nor a timestamp"
	case b.DSSEEnvelope.PayloadType != "application/vnd.in-toto+json" || len(b.DSSEEnvelope.Signatures) != 1 || len(b.DSSEEnvelope.Signatures[0].Sig) == 0:
		return nil, "not one signature over an in-toto statement"
	case json.Unmarshal(b.DSSEEnvelope.Payload, &statement) != nil || statement.Type != "https://in-toto.io/Statement/v1" || len(statement.Subject) == 0:
		return nil, "no statement with subjects"
	}
	for _, s := range statement.Subject {
		for algorithm, sum := range s.Digest {
			digests = append(digests, algorithm+":"+sum)
		}
	}
	return digests, ""
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
