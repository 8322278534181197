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
	"net/netip"
	"sync/atomic"
	"time"
)

// The codes of an answer are those of gRPC, as octo-sts gives them.
const (
	codeGranted         = 0
	codeInvalid         = 3
	codeNotFound        = 5
	codeDenied          = 7
	codeExhausted       = 8
	codeInternal        = 13
	codeUnauthenticated = 16
)

// patience is how long one exchange may take.
const patience = 30 * time.Second

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

// refusalOf makes a failure of ours one as well: the client hears nothing of it.
func refusalOf(err error) *refusal {
	var no *refusal
	if errors.As(err, &no) {
		return no
	}
	return &refusal{codeInternal, "internal error", err}
}

// Broker is the http.Handler of the exchange.
type Broker struct {
	cfg     Config
	apps    []*githubApp
	proxies []netip.Prefix
	keys    map[string]*keySet // by issuer
	store   *store
	log     *slog.Logger
	now     func() time.Time
	mux     *http.ServeMux
	checks  []check
	wider   func(*attempt, installationToken) bool // of what GitHub has issued
	metrics *metricSet

	byRepository *limiter      // exchanges
	byAddress    *limiter      // tokens that are not valid
	slots        chan struct{} // holds one for each exchange under way
	draining     atomic.Bool
}

// New opens the broker's database. What is wrong with the configuration comes as [policy.Problems], all at once. Close ends the broker.
func New(ctx context.Context, cfg Config, log *slog.Logger) (*Broker, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	database := cfg.Database
	if cfg.DatabaseEnv != "" {
		database = cfg.DatabaseURL.Reveal()
	}
	s, err := openStore(ctx, database)
	if err != nil {
		return nil, err
	}
	limits := cfg.Limits.withDefaults()
	b := &Broker{
		cfg: cfg, keys: map[string]*keySet{}, store: s, log: log, now: time.Now, mux: http.NewServeMux(), metrics: newMetrics(),
		byRepository: newLimiter(limits.Repository), byAddress: newLimiter(limits.Address), slots: make(chan struct{}, limits.InFlight),
	}
	b.checks, b.wider = b.allChecks(), wider
	for _, i := range cfg.Issuers {
		b.keys[i.Issuer] = &keySet{url: i.JWKS, client: limitedClient(), fetched: b.metrics.keysFetched}
	}
	for _, a := range cfg.Apps {
		app, err := newGitHubApp(a)
		if err != nil {
			return nil, errors.Join(err, s.db.Close())
		}
		b.apps = append(b.apps, app)
	}
	for _, text := range cfg.Proxies {
		b.proxies = append(b.proxies, netip.MustParsePrefix(text).Masked()) // checked above
	}
	b.mux.HandleFunc("GET /sts/exchange", b.exchange)
	b.mux.HandleFunc("POST /sts/exchange", b.exchange)
	b.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	b.mux.HandleFunc("GET /readyz", b.ready)
	b.mux.Handle("GET /metrics", b.metrics.handler())
	return b, nil
}

// Close closes the database, after the last request.
func (b *Broker) Close() error { return b.store.db.Close() }

// ServeHTTP implements http.Handler.
func (b *Broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	b.mux.ServeHTTP(w, r)
}

// ready says no while the database does not answer, and once the broker ends.
func (b *Broker) ready(w http.ResponseWriter, r *http.Request) {
	if b.draining.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	if err := b.store.db.PingContext(ctx); err != nil {
		b.log.Error("not ready", "error", err)
		w.WriteHeader(http.StatusServiceUnavailable)
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
	TokenSHA256  string            `json:"token_sha256"` // base64, as GitHub's audit log has it
}

func newAnswer(tok installationToken, a *attempt) *answer {
	sum := sha256.Sum256([]byte(tok.Token))
	return &answer{tok.Token, tok.ExpiresAt, tok.Permissions, []repository{a.target}, a.ref, randomID(), base64.StdEncoding.EncodeToString(sum[:])}
}

// exchange answers a request, within the limits that need no look at the token.
func (b *Broker) exchange(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	done := b.metrics.exchange()
	a := &attempt{trace: randomID(), authorization: r.Header.Values("Authorization"), query: r.URL.Query()}
	client := b.clientOf(r)
	ans, err := b.limited(ctx, a, client)
	if err == nil {
		b.log.Info("token issued", "trace_id", a.trace, "issuance_id", ans.IssuanceID, "token_sha256", ans.TokenSHA256, "policy", ans.Policy.Path,
			"scope", a.scope, "identity", a.identity, "subject", a.claims.Subject, "run_id", a.claims.RunID)
		done(codeGranted)
		writeJSON(w, http.StatusOK, ans)
		return
	}
	no := refusalOf(err)
	if no.code == codeUnauthenticated {
		b.byAddress.take(client, b.now())
	}
	b.log.Warn("exchange refused", "trace_id", a.trace, "code", no.code, "reason", no.reason, "error", no.detail, "client", client)
	b.settle(ctx, a, no)
	done(no.code)
	if no.code == codeExhausted {
		w.Header().Set("Retry-After", "60")
	}
	writeJSON(w, httpStatus(no.code), map[string]any{"code": no.code, "message": no.reason, "details": []any{map[string]string{"trace_id": a.trace}}})
}

// limited holds off whoever shows tokens that are not valid, and what is too much at one time, before a signature is verified.
func (b *Broker) limited(ctx context.Context, a *attempt, client string) (*answer, error) {
	if b.byAddress.spent(client, b.now()) {
		return nil, refuse(codeExhausted, "too many tokens that are not valid", "client %s", client)
	}
	select {
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	default:
		return nil, refuse(codeExhausted, "too many exchanges", "%d are under way", cap(b.slots))
	}
	return b.grant(ctx, a)
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
