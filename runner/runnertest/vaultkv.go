package runnertest

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// VaultKV is a Vault with one KV v2 engine, "kv" (https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2): it reads the newest
// version of a secret, and writes another with check-and-set. Every other request is a 501.
type VaultKV struct {
	URL   string
	Token string // that may read and write

	mu      sync.Mutex // guards secrets
	secrets map[string]*vaultVersion
}

type vaultVersion struct {
	data    map[string]any
	version int
	created time.Time
}

// NewVaultKV starts one for as long as the test lives.
func NewVaultKV(t testing.TB) *VaultKV {
	t.Helper()
	v := &VaultKV{Token: "hvs." + rand.Text(), secrets: map[string]*vaultVersion{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/kv/data/{path...}", v.authorised(v.read))
	mux.HandleFunc("POST /v1/kv/data/{path...}", v.authorised(v.write))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		vaultFail(w, http.StatusNotImplemented, "runnertest: this Vault has no "+r.Method+" "+r.URL.Path)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	v.URL = server.URL
	return v
}

// Put writes a version of a secret, as at this time.
func (v *VaultKV) Put(path string, data map[string]any, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	version := 1
	if before := v.secrets[path]; before != nil {
		version = before.version + 1
	}
	v.secrets[path] = &vaultVersion{data, version, at}
}

// Data is the newest version of a secret, and its number.
func (v *VaultKV) Data(path string) (data map[string]any, version int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.secrets[path]; s != nil {
		return s.data, s.version
	}
	return nil, 0
}

// vaultFail answers as Vault does.
func vaultFail(w http.ResponseWriter, status int, messages ...string) {
	writeJSON(w, status, map[string]any{"errors": append([]string{}, messages...)})
}

func (v *VaultKV) authorised(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Token") != v.Token {
			vaultFail(w, http.StatusForbidden, "permission denied")
			return
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		next(w, r)
	}
}

func (v *VaultKV) read(w http.ResponseWriter, r *http.Request) {
	s := v.secrets[r.PathValue("path")]
	if s == nil {
		vaultFail(w, http.StatusNotFound)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"data": map[string]any{"data": s.data, "metadata": s.metadata()}})
}

func (s *vaultVersion) metadata() map[string]any {
	return map[string]any{"created_time": s.created.UTC().Format(time.RFC3339Nano), "version": s.version, "destroyed": false, "deletion_time": ""}
}

func (v *VaultKV) write(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Options struct {
			CAS *int `json:"cas"`
		} `json:"options"`
		Data map[string]any `json:"data"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	d.UseNumber()
	if err := d.Decode(&body); err != nil || body.Data == nil {
		vaultFail(w, http.StatusBadRequest, "no data provided")
		return
	}
	path := r.PathValue("path")
	version := 0
	if before := v.secrets[path]; before != nil {
		version = before.version
	}
	switch {
	case strings.TrimSpace(path) == "":
		vaultFail(w, http.StatusNotFound)
		return
	case body.Options.CAS != nil && *body.Options.CAS != version:
		vaultFail(w, http.StatusBadRequest, "check-and-set parameter did not match the current version")
		return
	}
	s := &vaultVersion{body.Data, version + 1, time.Now()}
	v.secrets[path] = s
	writeJSON(w, http.StatusOK, map[string]any{"data": s.metadata()})
}
