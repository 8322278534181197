// Package broker exchanges a job's OIDC token for a GitHub App's token of one repository, as octo-sts does. It answers only when every
// check has passed and the audit record is on disk; it never tells a client what a trust policy says.
package broker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
)

// The codes of an answer are those of gRPC, as octo-sts gives them.
const (
	codeInvalid         = 3
	codeNotFound        = 5
	codeDenied          = 7
	codeExhausted       = 8
	codeInternal        = 13
	codeUnauthenticated = 16
)

// refusal is what a client is told, and why in truth, for the log.
type refusal struct {
	code   int
	reason string
	detail error
}

func (r *refusal) Error() string { return fmt.Sprintf("%s: %v", r.reason, r.detail) }

func refuse(code int, reason, format string, args ...any) error {
	return &refusal{code, reason, fmt.Errorf(format, args...)}
}

// Broker is the http.Handler of the exchange.
type Broker struct {
	cfg   Config
	keys  map[string]*keySet // by issuer
	store *store
	log   *slog.Logger
	now   func() time.Time
	mux   *http.ServeMux

	mu       sync.Mutex     // guards the rest
	answered map[int]uint64 // by code; 0 is a token
	window   time.Time
	inWindow map[string]int // exchanges of a repository in the present minute
}

// New opens the broker's database. Close ends it.
func New(cfg Config, log *slog.Logger) (*Broker, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s, err := openStore(cfg.Database)
	if err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, keys: map[string]*keySet{}, store: s, log: log, now: time.Now, mux: http.NewServeMux(), answered: map[int]uint64{}, inWindow: map[string]int{}}
	for _, i := range cfg.Issuers {
		b.keys[i.Issuer] = &keySet{url: i.JWKS, client: limitedClient()}
	}
	b.mux.HandleFunc("GET /sts/exchange", b.exchange)
	b.mux.HandleFunc("POST /sts/exchange", b.exchange)
	b.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	b.mux.HandleFunc("GET /readyz", b.ready)
	b.mux.HandleFunc("GET /metrics", b.metrics)
	return b, nil
}

// Close closes the database, after the last request.
func (b *Broker) Close() error { return b.store.db.Close() }

// ServeHTTP implements http.Handler.
func (b *Broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	b.mux.ServeHTTP(w, r)
}

func (b *Broker) ready(w http.ResponseWriter, r *http.Request) {
	if err := b.store.db.PingContext(r.Context()); err != nil {
		b.log.Error("not ready", "error", err)
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// metrics is Prometheus' text format, which for one counter needs no library.
func (b *Broker) metrics(w http.ResponseWriter, _ *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintln(w, "# TYPE agent_sandbox_broker_exchanges_total counter")
	for _, code := range []int{0, codeInvalid, codeNotFound, codeDenied, codeExhausted, codeInternal, codeUnauthenticated} {
		fmt.Fprintf(w, "agent_sandbox_broker_exchanges_total{code=\"%d\"} %d\n", code, b.answered[code])
	}
}

// answer is what octo-sts answers, and more, which its clients ignore.
type answer struct {
	Token        string            `json:"token"`
	ExpiresAt    time.Time         `json:"expires_at"`
	Permissions  map[string]string `json:"permissions"`
	Repositories []repository      `json:"repositories"`
	Policy       policyRef         `json:"policy"`
	IssuanceID   string            `json:"issuance_id"`
	TokenSHA256  string            `json:"token_sha256"`
}

func (b *Broker) exchange(w http.ResponseWriter, r *http.Request) {
	trace := randomID()
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	ans, err := b.grant(ctx, r, trace)
	code := 0
	if err != nil {
		var no *refusal
		if !errors.As(err, &no) {
			no = &refusal{codeInternal, "internal error", err}
		}
		code = no.code
		b.log.Warn("exchange refused", "trace_id", trace, "code", code, "reason", no.reason, "error", no.detail)
		writeJSON(w, httpStatus(code), map[string]any{"code": code, "message": no.reason, "details": []any{map[string]string{"trace_id": trace}}})
	} else {
		b.log.Info("token issued", "trace_id", trace, "issuance_id", ans.IssuanceID, "token_sha256", ans.TokenSHA256, "policy", ans.Policy.Path)
		writeJSON(w, http.StatusOK, ans)
	}
	b.mu.Lock()
	b.answered[code]++
	b.mu.Unlock()
}

func httpStatus(code int) int {
	switch code {
	case codeInvalid:
		return http.StatusBadRequest
	case codeUnauthenticated:
		return http.StatusUnauthorized
	case codeDenied:
		return http.StatusForbidden
	case codeNotFound:
		return http.StatusNotFound
	case codeExhausted:
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}

// scopeForm and identityForm are compiled once and never changed. What they let through can stand in a path.
var (
	scopeForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$`)
	identityForm = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$`)
)

// grant makes the checks in their order, and mints.
func (b *Broker) grant(ctx context.Context, r *http.Request, trace string) (*answer, error) {
	text, err := bearer(r)
	if err != nil {
		return nil, err
	}
	c, err := b.verify(ctx, text)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	scope, identity := q.Get("scope"), q.Get("identity")
	if len(q["scope"]) != 1 || len(q["identity"]) != 1 || !scopeForm.MatchString(scope) || !identityForm.MatchString(identity) {
		return nil, refuse(codeInvalid, "scope or identity is malformed", "scope %q, identity %q", q["scope"], q["identity"])
	}
	if !b.withinRate(c.RepositoryID) {
		return nil, refuse(codeExhausted, "too many exchanges", "repository %s", c.RepositoryID)
	}
	fresh, err := b.store.once(ctx, c.Issuer, c.ID, time.Unix(c.Expires, 0), b.now())
	if err != nil {
		return nil, err
	}
	if !fresh {
		return nil, refuse(codeUnauthenticated, "token was used before", "jti %q", c.ID)
	}
	app, inst, err := b.installation(ctx, scope)
	if err != nil {
		return nil, err
	}
	target, trust, ref, err := b.readTrust(ctx, app, inst, scope, identity)
	if err != nil {
		return nil, err
	}
	if err := trust.admits(c, target, b.cfg.Audience); err != nil {
		return nil, refuse(codeDenied, "the trust policy does not admit this token", "%s: %w", ref.Path, err)
	}
	permissions := narrowed(trust.Permissions, b.cfg.Ceiling)
	if len(permissions) == 0 {
		return nil, refuse(codeDenied, "nothing is left to grant", "%s: permissions and ceiling have nothing in common", ref.Path)
	}
	tok, err := b.mint(ctx, app, inst, target, permissions)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(tok.Token))
	ans := &answer{tok.Token, tok.ExpiresAt, tok.Permissions, []repository{target}, ref, randomID(), base64.StdEncoding.EncodeToString(sum[:])}
	if err := b.store.record(ctx, b.now(), trace, scope, identity, c, ans); err != nil {
		b.revoke(ctx, app, tok.Token)
		return nil, fmt.Errorf("audit record: %w", err)
	}
	return ans, nil
}

// bearer is the token of the only Authorization header.
func bearer(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", refuse(codeUnauthenticated, "want exactly one Authorization header", "there are %d", len(values))
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", refuse(codeUnauthenticated, "want a bearer token", "scheme is another")
	}
	if len(token) > maxToken {
		return "", refuse(codeUnauthenticated, "token is too large", "%d bytes", len(token))
	}
	return token, nil
}

// perMinute is how many exchanges one repository has in a minute.
const perMinute = 120

func (b *Broker) withinRate(repository string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if minute := b.now().Truncate(time.Minute); !minute.Equal(b.window) {
		b.window, b.inWindow = minute, map[string]int{}
	}
	b.inWindow[repository]++
	return b.inWindow[repository] <= perMinute
}

func randomID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// Whoever asked has gone, if this fails.
	_ = json.NewEncoder(w).Encode(v)
}
