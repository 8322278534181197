package runnertest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// KeyProvider is a service that makes, takes and revokes API keys, over HTTP:
//
//	POST   /v1/keys       {"name": TEXT}     Authorization: Bearer ADMIN  -> 201 {"id": ID, "api_key": {"value": KEY}}
//	DELETE /v1/keys/ID                       Authorization: Bearer ADMIN  -> 204; 404 for a key that is not there any more
//	GET    /v1/key                           x-api-key: KEY               -> 200 {"id": ID}
//	GET    /v1/models                        x-api-key: KEY               -> 200
//
// A key that it does not know is a 401. What it doesn't know it answers with 501.
type KeyProvider struct {
	URL   string // without a slash at the end
	Admin string // the administrator's key

	mu    sync.Mutex // guards the rest
	keys  map[string]string
	made  int
	most  int
	after func(r *http.Request) int
}

// NewKeyProvider starts one for as long as the test lives, and makes a first key.
func NewKeyProvider(t testing.TB) (p *KeyProvider, id, key string) {
	t.Helper()
	p = &KeyProvider{Admin: "admin-" + rand.Text() + rand.Text(), keys: map[string]string{}, most: 1 << 30}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/keys", p.byAdmin(p.create))
	mux.HandleFunc("DELETE /v1/keys/{id}", p.byAdmin(p.revoke))
	mux.HandleFunc("GET /v1/key", p.byKey)
	mux.HandleFunc("GET /v1/models", p.byKey)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotImplemented, "runnertest: this provider has no "+r.Method+" "+r.URL.Path)
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, r)
		p.answer(w, r, rec)
	}))
	t.Cleanup(server.Close)
	p.URL = server.URL
	id, key = p.add()
	return p, id, key
}

// answer lets a fault take the place of an answer, after what was asked for has been done.
func (p *KeyProvider) answer(w http.ResponseWriter, r *http.Request, rec *httptest.ResponseRecorder) {
	p.mu.Lock()
	after := p.after
	p.mu.Unlock()
	if after != nil {
		if status := after(r); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// After has f choose another status for an answer, 0 for none: what was asked for has been done all the same.
func (p *KeyProvider) After(f func(r *http.Request) int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.after = f
}

// Most bounds the keys that there can be at a time.
func (p *KeyProvider) Most(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = n
}

// Live are the keys that work, by id.
func (p *KeyProvider) Live() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	live := map[string]string{}
	for id, key := range p.keys {
		live[id] = key
	}
	return live
}

// Works tells whether the provider takes a key.
func (p *KeyProvider) Works(key string) bool {
	for _, live := range p.Live() {
		if live == key {
			return true
		}
	}
	return false
}

func (p *KeyProvider) add() (id, key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made++
	id, key = fmt.Sprintf("key_%d", p.made), "sk-test-"+rand.Text()+rand.Text()
	p.keys[id] = key
	return id, key
}

func (p *KeyProvider) byAdmin(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+p.Admin {
			fail(w, http.StatusUnauthorized, "Bad credentials")
			return
		}
		next(w, r)
	}
}

func (p *KeyProvider) create(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Name string `json:"name"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil || body.Name == "" || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		fail(w, http.StatusUnprocessableEntity, "name is missing")
		return
	}
	if len(p.Live()) >= p.most {
		fail(w, http.StatusConflict, "There are too many keys")
		return
	}
	id, key := p.add()
	writeJSON(w, http.StatusCreated, map[string]any{"id": id, "name": body.Name, "api_key": map[string]any{"value": key}})
}

func (p *KeyProvider) revoke(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := r.PathValue("id")
	if p.keys[id] == "" {
		fail(w, http.StatusNotFound, "There is no such key")
		return
	}
	delete(p.keys, id)
	w.WriteHeader(http.StatusNoContent)
}

func (p *KeyProvider) byKey(w http.ResponseWriter, r *http.Request) {
	for id, key := range p.Live() {
		if key == r.Header.Get("x-api-key") {
			writeJSON(w, http.StatusOK, map[string]any{"id": id})
			return
		}
	}
	fail(w, http.StatusUnauthorized, "Bad credentials")
}
