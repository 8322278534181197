package broker

import (
	"database/sql"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// Both databases do the same, by the same schema.
func TestStores(t *testing.T) {
	for name, database := range map[string]func(t *testing.T) string{
		"SQLite":     func(t *testing.T) string { return filepath.Join(t.TempDir(), "a file's name?mode=memory#x %41.db") },
		"PostgreSQL": func(t *testing.T) string { return postgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			where := database(t)
			s, err := openStore(t.Context(), where)
			if err != nil {
				t.Fatal(err)
			}
			testOnce(t, s)
			testRecord(t, s)
			if err := s.db.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = openStore(t.Context(), where); err != nil {
				t.Fatalf("opened again: %v", err)
			}
			if used, err := s.seen(t.Context(), &claims{Issuer: "https://i.example", ID: "kept"}); err != nil || !used {
				t.Errorf("after a restart the token is used: %t, %v", used, err)
			}
			if _, err := s.db.Exec("DROP TABLE audit"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.db.Exec("CREATE TABLE audit (at TEXT, trace_id TEXT)"); err != nil {
				t.Fatal(err)
			}
			if err := s.db.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err = openStore(t.Context(), where); err == nil || !strings.Contains(err.Error(), "audit is not of this version") {
				t.Errorf("a table of another version: %v", err)
			}
		})
	}
}

func testOnce(t *testing.T, s *store) {
	t.Helper()
	now := time.Now()
	c := &claims{Issuer: "https://i.example", ID: "kept", Expires: now.Add(time.Hour).Unix()}
	once := func(c *claims, now time.Time, want bool) {
		t.Helper()
		if got, err := s.once(t.Context(), c, now); err != nil || got != want {
			t.Errorf("once(%q) = %t, %v, want %t", c.ID, got, err, want)
		}
	}
	once(c, now, true)
	once(c, now, false)
	once(&claims{Issuer: "https://other.example", ID: "kept", Expires: c.Expires}, now, true)
	back := &claims{Issuer: c.Issuer, ID: "back", Expires: c.Expires}
	once(back, now, true)
	if err := s.giveBack(t.Context(), back); err != nil {
		t.Error(err)
	}
	once(back, now, true)

	// Tokens are forgotten when no clock of any replica takes them for valid.
	old := &claims{Issuer: c.Issuer, ID: "old", Expires: now.Add(-keepUsed / 2).Unix()}
	once(old, now.Add(2*sweepEvery), true)
	once(old, now.Add(4*sweepEvery), false)
	once(old, now.Add(keepUsed), true)
	once(c, now.Add(keepUsed), false)
}

func testRecord(t *testing.T, s *store) {
	t.Helper()
	c := &claims{Issuer: "https://i.example", Subject: "repo:acme/shop:ref:refs/heads/it's", ID: "j", RepositoryID: "7", RunID: "1", Event: "push"}
	a := &answer{Permissions: map[string]string{"contents": "read"}, Policy: policyRef{Path: "p"}, IssuanceID: "i", TokenSHA256: "sum", ExpiresAt: time.Unix(1, 0)}
	for _, r := range []record{
		{at: time.Unix(0, 0), trace: "t1", claims: c, scope: "acme/shop", identity: "ci", answer: a},
		{at: time.Unix(0, 0), trace: "t2", code: codeDenied, reason: "no", claims: c, scope: "acme/shop", identity: "ci"},
	} {
		if err := s.write(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	rows, err := s.db.Query("SELECT trace_id, code, reason, subject, permissions, policy, token_sha256, expires FROM audit ORDER BY trace_id")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var trace, reason, subject, permissions, policy, sum, expires string
		var code int
		if err := rows.Scan(&trace, &code, &reason, &subject, &permissions, &policy, &sum, &expires); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintln(trace, code, reason, subject, permissions, policy, sum, expires))
	}
	want := []string{
		"t1 0  repo:acme/shop:ref:refs/heads/it's {\"contents\":\"read\"} {\"path\":\"p\",\"commit\":\"\",\"sha256\":\"\"} sum 1970-01-01T00:00:01Z\n",
		"t2 7 no repo:acme/shop:ref:refs/heads/it's    \n",
	}
	if err := rows.Err(); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("audit: %v\n%q, want\n%q", err, got, want)
	}
}

// Two replicas share a server: a token that one of them took the other refuses, and of many that come at one moment one wins.
func TestReplicas(t *testing.T) {
	database := postgres(t)
	w := newWorldWith(t, func(c *Config) { c.Database = database; c.Limits.Repository = 1000 })
	replicas := []*Broker{w.b, nil, nil}
	var starts errgroup.Group // together
	for i := range replicas[1:] {
		starts.Go(func() (err error) {
			replicas[1+i], err = w.replica()
			return err
		})
	}
	if err := starts.Wait(); err != nil {
		t.Fatal(err)
	}

	auth := w.mint(nil)
	if status, v := askOf(t, replicas[0], http.MethodGet, good, auth); status != http.StatusOK {
		t.Fatalf("first use: %d %v", status, v)
	}
	for i, b := range replicas {
		if status, v := askOf(t, b, http.MethodGet, good, auth); status != http.StatusUnauthorized || v["message"] != "token was used before" {
			t.Errorf("replica %d: %d %v, want 401 for a token that another one took", i, status, v)
		}
	}
	for round := range 5 {
		const each = 8
		auth := w.mint(nil)
		start := make(chan struct{})
		statuses := make(chan int, each*len(replicas))
		var wait sync.WaitGroup
		for _, b := range replicas {
			for range each {
				wait.Go(func() {
					<-start
					status, _ := askOf(t, b, http.MethodGet, good, auth)
					statuses <- status
				})
			}
		}
		close(start)
		wait.Wait()
		close(statuses)
		count := map[int]int{}
		for s := range statuses {
			count[s]++
		}
		if count[http.StatusOK] != 1 || count[http.StatusUnauthorized] != each*len(replicas)-1 {
			t.Errorf("round %d: answers by status %v, want one 200 and %d of 401", round, count, each*len(replicas)-1)
		}
	}
	audited(t, w.b.store.db, 6)
}

// audited counts the grants.
func audited(t *testing.T, db *sql.DB, want int) {
	t.Helper()
	var n int
	if err := db.QueryRow("SELECT count(*) FROM audit WHERE code = 0").Scan(&n); err != nil || n != want {
		t.Errorf("%d grants in the audit log, %v, want %d", n, err, want)
	}
}

func TestPostgresURL(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://b@db.example/x":                  "postgres://b@db.example/x?sslmode=verify-full",
		"postgres://b@db.example/x?sslmode=require":  "postgres://b@db.example/x?sslmode=require",
		"postgres://b@db.example/x?sslmode=disable":  "postgres://b@db.example/x?sslmode=disable",
		"postgres://b@db.example/x?sslmode=prefer":   "",
		"postgres://b@db.example/x?sslmode=allow":    "",
		"postgres://b@127.0.0.1/x":                   "postgres://b@127.0.0.1/x?sslmode=disable",
		"postgres:///x?host=/run/postgresql":         "postgres:///x?host=%2Frun%2Fpostgresql&sslmode=disable",
		"postgres://b:secret@db.example:port/x":      "",
		"postgres://127.0.0.1/x?host=db.example.org": "postgres://127.0.0.1/x?host=db.example.org&sslmode=verify-full",
	} {
		got, err := postgresURL(url)
		if got != want || (err == nil) != (want != "") || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("postgresURL(%q) = %q, %v, want %q", url, got, err, want)
		}
	}
}
