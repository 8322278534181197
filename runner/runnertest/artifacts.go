package runnertest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// ArtifactsConfig is how an [Artifacts] serves.
type ArtifactsConfig struct {
	// Act serves as nektos/act does: camel case, numbers as strings, unknown fields refused with 500, blocks stored in the order of their
	// arrival and without their ids, a name that is taken begun anew, and hash and size believed.
	Act bool
}

// Artifacts is the artifact service of GitHub Actions, version 4, with the blob store (Azure) that it hands out addresses of. What it
// doesn't know it answers with 501. A [Fault] chooses by the path "/CreateArtifact" and so on, or, of the blob store, by the last
// part of the query: "comp=block&" or "comp=blocklist". The status 403 means that storage is used up.
type Artifacts struct {
	URL   string // ACTIONS_RESULTS_URL
	Token string // ACTIONS_RUNTIME_TOKEN

	faults
	act    bool
	server *httptest.Server

	mu       sync.Mutex // guards the rest
	blobs    map[string]*blob
	requests []Request
}

// blob is one artifact, by its name.
type blob struct {
	id        int64
	signature string
	expires   string            // as it was asked for
	blocks    map[string][]byte // by id, until they are listed
	body      []byte
	listed    bool
	final     bool
}

// artifactRun and artifactJob are the job's ids.
const artifactRun, artifactJob = "4242", "a2c5e1f0"

// NewArtifacts starts one for as long as the test lives.
func NewArtifacts(t testing.TB, cfg ArtifactsConfig) *Artifacts {
	t.Helper()
	a := &Artifacts{act: cfg.Act, blobs: map[string]*blob{}}
	claims := map[string]any{"scp": "Actions.GenericRead:0 Actions.Results:" + artifactRun + ":" + artifactJob, "exp": 4102444800}
	a.Token = part(map[string]any{"alg": "RS256", "typ": "JWT"}) + "." + part(claims) + "." + randomText(32)
	a.server = httptest.NewServer(http.HandlerFunc(a.serve))
	a.URL = a.server.URL + "/"
	t.Cleanup(a.server.Close)
	return a
}

// Zip is an artifact that was finished.
func (a *Artifacts) Zip(name string) ([]byte, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.blobs[name]
	if b == nil || !b.final {
		return nil, false
	}
	return b.body, true
}

// Expires is the end that was asked for, empty if none was.
func (a *Artifacts) Expires(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b := a.blobs[name]; b != nil {
		return b.expires
	}
	return ""
}

// Requests are those that came so far.
func (a *Artifacts) Requests() []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]Request(nil), a.requests...)
}

func (a *Artifacts) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	a.mu.Lock()
	a.requests = append(a.requests, Request{Method: r.Method, Path: r.URL.RequestURI(), Credential: bearer, Header: r.Header.Clone()})
	a.mu.Unlock()
	method, isTwirp := strings.CutPrefix(r.URL.Path, "/twirp/github.actions.results.api.v1.ArtifactService/")
	what := "/" + method
	if !isTwirp {
		what = r.URL.RawQuery[max(0, strings.LastIndex(r.URL.RawQuery, "comp=")):]
	}
	fault := a.pick(r.Method, what)
	fault.wait(r)
	out := w
	if fault.Drop {
		out = httptest.NewRecorder()
	}
	switch {
	case fault.Status == http.StatusForbidden:
		twirpError(w, fault.Status, "permission_denied", "insufficient usage to create artifact")
		return
	case fault.Status != 0:
		w.Header().Set("Retry-After", "0")
		twirpError(w, fault.Status, "unavailable", http.StatusText(fault.Status))
		return
	case !isTwirp:
		a.serveBlob(out, r, body)
	case bearer != a.Token || r.Method != http.MethodPost:
		twirpError(out, http.StatusUnauthorized, "unauthenticated", "bad token")
	default:
		a.call(out, method, body)
	}
	if fault.Drop {
		panic(http.ErrAbortHandler)
	}
}

func twirpError(w http.ResponseWriter, status int, code, message string) {
	writeJSON(w, status, map[string]any{"code": code, "msg": message})
}

// artifactRequest has the fields of all methods; protobuf's JSON takes either spelling, and we send snake case.
type artifactRequest struct {
	Run     string `json:"workflow_run_backend_id"`
	Job     string `json:"workflow_job_run_backend_id"`
	Name    string `json:"name"`
	Version int    `json:"version"`
	Expires string `json:"expires_at"`
	Size    string `json:"size"`
	Hash    string `json:"hash"`
	Filter  string `json:"name_filter"`
}

func (a *Artifacts) call(w http.ResponseWriter, method string, body []byte) {
	var req artifactRequest
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		status := http.StatusBadRequest
		if a.act {
			status = http.StatusInternalServerError
		}
		twirpError(w, status, "malformed", err.Error())
		return
	}
	if req.Run != artifactRun || req.Job != artifactJob {
		twirpError(w, http.StatusForbidden, "permission_denied", "not this job's")
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.blobs[req.Name]
	switch {
	case method == "CreateArtifact":
		a.create(w, req)
	case method == "ListArtifacts":
		a.list(w, req)
	case b == nil:
		twirpError(w, http.StatusNotFound, "not_found", "no such artifact")
	case method == "FinalizeArtifact":
		a.finalize(w, b, req)
	case method == "GetSignedArtifactURL":
		a.answer(w, map[string]any{"signed_url": a.address(req.Name, b)})
	case method == "DeleteArtifact":
		delete(a.blobs, req.Name)
		a.answer(w, map[string]any{"ok": true, "artifact_id": fmt.Sprint(b.id)})
	default:
		twirpError(w, http.StatusNotImplemented, "bad_route", "runnertest: no "+method)
	}
}

func (a *Artifacts) create(w http.ResponseWriter, req artifactRequest) {
	switch {
	case req.Version != 4 || req.Name == "" || strings.ContainsAny(req.Name, "\":<>|*?\\/\r\n"):
		twirpError(w, http.StatusBadRequest, "invalid_argument", "bad name or version")
		return
	case a.blobs[req.Name] != nil && !a.act:
		twirpError(w, http.StatusConflict, "already_exists", "an artifact with this name already exists on the workflow run")
		return
	}
	b := &blob{id: int64(len(a.blobs)) + 1<<40, signature: randomText(32) + "=", expires: req.Expires, blocks: map[string][]byte{}}
	a.blobs[req.Name] = b
	a.answer(w, map[string]any{"ok": true, "signed_upload_url": a.address(req.Name, b)})
}

func (a *Artifacts) finalize(w http.ResponseWriter, b *blob, req artifactRequest) {
	sum := sha256.Sum256(b.body)
	switch {
	case a.act:
	case !b.listed || req.Size != strconv.Itoa(len(b.body)):
		twirpError(w, http.StatusBadRequest, "invalid_argument", "the size is another one")
		return
	case req.Hash != "sha256:"+hex.EncodeToString(sum[:]):
		twirpError(w, http.StatusBadRequest, "invalid_argument", "the hash is another one")
		return
	}
	b.final = true
	a.answer(w, map[string]any{"ok": true, "artifact_id": fmt.Sprint(b.id)})
}

func (a *Artifacts) list(w http.ResponseWriter, req artifactRequest) {
	found := []any{}
	for name, b := range a.blobs {
		if b.final && (req.Filter == "" || req.Filter == name) {
			found = append(found, map[string]any{"name": name, "database_id": fmt.Sprint(b.id), "size": fmt.Sprint(len(b.body))})
		}
	}
	a.answer(w, map[string]any{"artifacts": found})
}

// answer writes in the spelling of the server; numbers are strings in both.
func (a *Artifacts) answer(w http.ResponseWriter, fields map[string]any) {
	if a.act {
		camel := map[string]any{}
		for name, v := range fields {
			words := strings.Split(name, "_")
			for i, s := range words[1:] {
				words[i+1] = strings.ToUpper(s[:1]) + s[1:]
			}
			camel[strings.Join(words, "")] = v
		}
		fields = camel
	}
	writeJSON(w, http.StatusOK, fields)
}

func (a *Artifacts) address(name string, b *blob) string {
	return a.server.URL + "/blob/" + base64.RawURLEncoding.EncodeToString([]byte(name)) + "?sv=2025-11-05&sp=cw&sig=" + strings.ReplaceAll(b.signature, "=", "%3D")
}

// serveBlob is the store. It wants the signature, and no other credential.
func (a *Artifacts) serveBlob(w http.ResponseWriter, r *http.Request, body []byte) {
	name, _ := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(r.URL.Path, "/blob/"))
	a.mu.Lock()
	defer a.mu.Unlock()
	b, query := a.blobs[string(name)], r.URL.Query()
	if b == nil || query.Get("sig") != b.signature || r.Header.Get("Authorization") != "" {
		w.Header().Set("X-Ms-Error-Code", "AuthenticationFailed")
		w.WriteHeader(http.StatusForbidden)
		return
	}
	switch comp := query.Get("comp"); {
	case r.Method == http.MethodGet && b.final:
		_, _ = w.Write(b.body)
	case r.Method == http.MethodPut && comp == "block":
		b.putBlock(w, query.Get("blockid"), body, a.act)
	case r.Method == http.MethodPut && comp == "blocklist":
		b.putList(w, r, body, a.act)
	case r.Method == http.MethodPut && a.act:
		w.WriteHeader(http.StatusOK) // act stores nothing
	default:
		w.Header().Set("X-Ms-Error-Code", "InvalidQueryParameterValue")
		w.WriteHeader(http.StatusBadRequest)
	}
}

func (b *blob) putBlock(w http.ResponseWriter, id string, body []byte, act bool) {
	if act {
		b.body = append(b.body, body...)
		w.WriteHeader(http.StatusCreated)
		return
	}
	_, err := base64.StdEncoding.DecodeString(id)
	for other := range b.blocks {
		if len(other) != len(id) {
			err = fmt.Errorf("the ids have different lengths")
		}
	}
	if err != nil || id == "" || len(body) == 0 {
		w.Header().Set("X-Ms-Error-Code", "InvalidBlobOrBlock")
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	b.blocks[id] = body
	w.WriteHeader(http.StatusCreated)
}

func (b *blob) putList(w http.ResponseWriter, r *http.Request, body []byte, act bool) {
	var list struct {
		XMLName xml.Name `xml:"BlockList"`
		Latest  []string `xml:"Latest"`
	}
	err := xml.Unmarshal(body, &list)
	if !act {
		b.body = nil
		for _, id := range list.Latest {
			part, ok := b.blocks[id]
			if !ok {
				err = fmt.Errorf("there is no block %s", id)
			}
			b.body = append(b.body, part...)
		}
	}
	if err != nil || r.Header.Get("X-Ms-Blob-Content-Type") != "application/zip" {
		w.Header().Set("X-Ms-Error-Code", "InvalidBlockList")
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	b.listed = true
	w.WriteHeader(http.StatusCreated)
}
