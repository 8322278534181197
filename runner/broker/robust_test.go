package broker

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// A job has one identity, and its client tries again with it: where GitHub failed before anything was issued, that has to work.
func TestRetryAfterGitHubFailed(t *testing.T) {
	for name, fault := range map[string]runnertest.Fault{
		"installation":           {Path: "/repos/acme/shop/installation", Status: http.StatusBadGateway},
		"token for the policy":   {Path: "/app/installations/", Status: http.StatusServiceUnavailable},
		"commit":                 {Path: "/repos/acme/shop/commits/", Status: http.StatusInternalServerError},
		"trust policy":           {Path: "/repos/acme/shop/contents/", Drop: true},
		"rate limit at the mint": {Path: "/app/installations/", Status: http.StatusTooManyRequests, Skip: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			end := w.gh.Inject(fault)
			auth := w.mint(nil)
			for range 2 {
				if status, v := w.ask(http.MethodGet, good, auth); status != http.StatusInternalServerError || v["message"] != "internal error" {
					t.Errorf("%d %v, want 500 without a detail", status, v)
				}
			}
			end()
			if status, v := w.ask(http.MethodGet, good, auth); status != http.StatusOK {
				t.Errorf("the retry: %d %v, want 200", status, v)
			}
			if status, _ := w.ask(http.MethodGet, good, auth); status != http.StatusUnauthorized {
				t.Errorf("after the grant: %d, want 401", status)
			}
		})
	}
}

// What was refused, or may have been issued, is used up.
func TestNoRetryAfterARefusal(t *testing.T) {
	w := newWorld(t)
	auth := w.mint(nil)
	if status, _ := w.ask(http.MethodGet, "scope=acme/shop&identity=nobody", auth); status != http.StatusNotFound {
		t.Fatalf("status %d, want 404", status)
	}
	if status, v := w.ask(http.MethodGet, good, auth); status != http.StatusUnauthorized {
		t.Errorf("after a refusal: %d %v, want 401: identities can't be tried one after another", status, v)
	}
	end := w.gh.Inject(runnertest.Fault{Method: http.MethodPost, Path: "/app/installations/", Skip: 1, Status: http.StatusBadGateway})
	auth = w.mint(nil)
	for _, want := range []int{http.StatusInternalServerError, http.StatusUnauthorized} {
		if status, v := w.ask(http.MethodGet, good, auth); status != want {
			t.Errorf("a gateway that failed at the mint: %d %v, want %d", status, v, want)
		}
	}
	end()
	w.control()
}

// An App that was not given what the policy and the ceiling name is the operator's to mend, and no failure of ours.
func TestAppMayNotGrant(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.Ceiling["issues"] = "write" })
	w.control()
	w.repo.WriteFile(trustFile, "issuer: "+w.oidc.URL+"\nsubject_pattern: .*\npermissions: {issues: write}\n")
	if status, v := w.ask(http.MethodGet, good, w.mint(nil)); status != http.StatusForbidden || v["message"] != "the App may not grant this" {
		t.Errorf("%d %v, want 403", status, v)
	}
}

// Refusals of valid tokens are in the audit log, by the trace id that the client was told; tokens that are not valid can't fill it.
func TestRefusalsAreRecorded(t *testing.T) {
	w := newWorld(t)
	w.control()
	w.ask(http.MethodGet, good, w.mint(map[string]any{"exp": 1}))
	w.ask(http.MethodGet, good, "Bearer x.y.z")
	_, v := w.ask(http.MethodGet, good, w.mint(map[string]any{"event_name": "pull_request_target", "run_id": "99"}))
	trace := v["details"].([]any)[0].(map[string]any)["trace_id"]
	var rows, code int
	var reason, run, event, sum string
	err := w.b.store.db.QueryRow("SELECT (SELECT count(*) FROM audit), code, reason, run_id, event, token_sha256 FROM audit WHERE trace_id = ?", trace).Scan(&rows, &code, &reason, &run, &event, &sum)
	if err != nil || rows != 2 || code != codeDenied || reason != v["message"] || run != "99" || event != "pull_request_target" || sum != "" {
		t.Errorf("%d rows; code %d, %q, run %s, event %s, token %q, %v", rows, code, reason, run, event, sum, err)
	}
}

// The keys outlast an outage of the issuer by minutes, not longer; a failed look is not repeated at once; nobody waits for another one's look longer than he wants to.
func TestKeysWhileTheIssuerIsDown(t *testing.T) {
	w := newWorld(t)
	start, offset := time.Now(), time.Duration(0)
	w.b.now = func() time.Time { return start.Add(offset) }
	at := func(d time.Duration, want int) {
		t.Helper()
		w.oidc.Advance(d - offset)
		w.gh.Advance(d - offset)
		offset = d
		if status, v := w.ask(http.MethodGet, good, w.mint(nil)); status != want {
			t.Errorf("after %s: %d %v, want %d", d, status, v, want)
		}
	}
	looks := func() int {
		n := 0
		for _, r := range w.oidc.Requests() {
			if strings.Contains(r.Path, "jwks") {
				n++
			}
		}
		return n
	}
	w.oidc.SetDown(true)
	at(0, 500)
	at(keysWait-time.Second, 500)
	if got := looks(); got != 1 {
		t.Errorf("%d looks for the keys, want 1: the failure is remembered", got)
	}
	w.oidc.SetDown(false)
	at(keysWait-time.Second, 500)
	at(keysWait, 200)
	w.oidc.SetDown(true)
	at(keysWait+keysFresh-time.Second, 200)
	if got := looks(); got != 2 {
		t.Errorf("%d looks for the keys, want 2: fresh ones are not asked for", got)
	}
	at(keysWait+keysFresh, 200)
	at(keysWait+keysLife-time.Second, 200)
	at(keysWait+keysLife, 500)
	w.oidc.SetDown(false)
	w.oidc.Rotate()
	w.oidc.Forget()
	at(2*keysWait+keysLife, 200)
	w.oidc.Rotate()
	at(2*keysWait+keysLife+time.Second, 401) // a key that was not there a moment ago
	at(3*keysWait+keysLife, 200)
}

func TestKeysAreFetchedOnce(t *testing.T) {
	hold := make(chan struct{})
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1); <-hold }))
	defer server.Close()
	defer close(hold)
	k := &keySet{url: server.URL, client: limitedClient(), fetched: func(error) {}}
	started := make(chan struct{}, 10)
	ended := make(chan error, 10)
	ctx, cancel := context.WithCancel(t.Context())
	for range 10 {
		go func() {
			started <- struct{}{}
			_, err := k.find(ctx, "x", time.Now())
			ended <- err
		}()
	}
	for range 10 {
		<-started
	}
	cancel() // the issuer still holds the answer, and nobody is held by it
	for range 10 {
		if err := <-ended; err == nil {
			t.Error("a key without an answer")
		}
	}
	if n := asked.Load(); n > 1 {
		t.Errorf("%d requests at one time, want 1", n)
	}
}

// A flood of tokens that are not valid is held off by the address, before any signature is verified; others go on.
func TestFlood(t *testing.T) {
	w := newWorldWith(t, func(c *Config) {
		c.Limits.Address = 5
		c.Proxies = []string{"10.0.0.0/8"}
	})
	now := w.ahead()
	w.b.now = func() time.Time { return now }
	ask := func(peer, forwarded, auth string) (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/sts/exchange?"+good, nil)
		r.RemoteAddr = peer
		r.Header.Set("Authorization", auth)
		if forwarded != "" {
			r.Header.Set("X-Forwarded-For", forwarded)
		}
		rec := httptest.NewRecorder()
		w.b.ServeHTTP(rec, r)
		return rec.Code, rec.Header().Get("Retry-After")
	}
	for i := range 8 {
		want := http.StatusUnauthorized
		if i >= 5 {
			want = http.StatusTooManyRequests
		}
		if status, retry := ask("203.0.113.7:1", "", "Bearer x.y.z"); status != want || (retry != "") != (want == http.StatusTooManyRequests) {
			t.Errorf("request %d: %d, Retry-After %q, want %d", i, status, retry, want)
		}
	}
	for _, tt := range []struct {
		peer, forwarded string
		want            int
	}{
		{"203.0.113.7:2", "", 429},
		{"203.0.113.7:2", "198.51.100.1", 429},           // no proxy: what it says counts for nothing
		{"10.0.0.1:1", "203.0.113.7", 429},               // the same client behind the proxy
		{"10.0.0.1:1", "1.2.3.4, 203.0.113.7", 429},      // with an address that it made up
		{"10.0.0.1:1", "203.0.113.7, 10.2.3.4", 429},     // through two proxies
		{"10.0.0.1:1", "203.0.113.7, 198.51.100.1", 200}, // another one, who claims to come from there
		{"10.0.0.1:1", "", 200},
		{"203.0.113.8:1", "", 200},
	} {
		if status, _ := ask(tt.peer, tt.forwarded, w.mint(nil)); status != tt.want {
			t.Errorf("from %s for %q: %d, want %d", tt.peer, tt.forwarded, status, tt.want)
		}
	}
	now = now.Add(time.Minute)
	w.gh.Advance(time.Minute)
	if status, _ := ask("203.0.113.7:1", "", w.mint(nil)); status != http.StatusOK {
		t.Errorf("a minute later: %d, want 200", status)
	}
}

// ahead is a time that stands still, and is not before that of the tokens that the test mints.
func (w *world) ahead() time.Time {
	const d = 30 * time.Second
	w.gh.Advance(d)
	return time.Now().Add(d)
}

func TestClientOfIPv6(t *testing.T) {
	b := &Broker{proxies: []netip.Prefix{netip.MustParsePrefix("::1/128")}}
	for peer, want := range map[string]string{
		"[2001:db8::1]:1": "2001:db8::/64", "[2001:db8::ffff:1%eth0]:1": "2001:db8::/64", "[::ffff:203.0.113.7]:1": "203.0.113.7", "nonsense": "", "[::1]:5": "::/64",
	} {
		if got := b.clientOf(&http.Request{RemoteAddr: peer}); got != want {
			t.Errorf("client of %s is %q, want %q", peer, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.Limits = Limits{Repository: 2, InFlight: 1} })
	now := w.ahead()
	w.b.now = func() time.Time { return now }
	other := map[string]any{"repository_id": "1"}
	for i, tt := range []struct {
		claims map[string]any
		want   int
	}{{nil, 200}, {nil, 200}, {nil, 429}, {other, 403}} {
		if status, v := w.ask(http.MethodGet, good, w.mint(tt.claims)); status != tt.want {
			t.Errorf("exchange %d: %d %v, want %d", i, status, v, tt.want)
		}
	}
	now = now.Add(time.Minute)
	w.gh.Advance(time.Minute)
	w.control()
	w.b.slots <- struct{}{}
	if status, v := w.ask(http.MethodGet, good, w.mint(nil)); status != http.StatusTooManyRequests {
		t.Errorf("with one under way: %d %v, want 429", status, v)
	}
	<-w.b.slots
	w.control()
}

// A limiter's memory is bounded: those that come when it is full share one count.
func TestLimiterIsBounded(t *testing.T) {
	l, now := newLimiter(1), time.Now()
	for i := range maxCounted {
		l.take(netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}).String(), now)
	}
	if l.take("new", now); l.take("newer", now) || len(l.counts) > maxCounted+1 {
		t.Errorf("%d names, and one too many within its limit", len(l.counts))
	}
}
