package engine

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/docker/docker/api/types/system"
)

// fakeEngine answers what an engine says of itself.
func fakeEngine(t *testing.T, version *atomic.Value) Config {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		if !strings.HasSuffix(req.URL.Path, "/info") {
			return
		}
		_ = json.NewEncoder(w).Encode(system.Info{ID: "one", ServerVersion: version.Load().(string)})
	}))
	t.Cleanup(srv.Close)
	return Config{Host: "tcp://" + srv.Listener.Addr().String(), CacheDir: t.TempDir()}
}

func resume(t *testing.T, cfg Config) *Engine {
	t.Helper()
	e, err := Resume(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// TestResume: an engine that is another one than the last time is never taken for that one.
func TestResume(t *testing.T) {
	var version atomic.Value
	version.Store("1")
	cfg := fakeEngine(t, &version)

	check := func(when, before string, want error, after string) {
		t.Helper()
		e := resume(t, cfg)
		if got := e.Facts().Version; got != before {
			t.Errorf("%s: version %q to begin with, want %q", when, got, before)
		}
		if err := e.Confirm(); !errors.Is(err, want) {
			t.Errorf("%s: Confirm() = %v, want %v", when, err, want)
		}
		if got := e.Facts().Version; got != after {
			t.Errorf("%s: version %q in the end, want %q", when, got, after)
		}
		if err := e.Confirm(); err != nil {
			t.Errorf("%s: the second Confirm() = %v", when, err)
		}
	}
	check("the first time", "1", nil, "1")
	check("the second time", "1", nil, "1")
	version.Store("2")
	check("after an upgrade", "1", ErrChanged, "2")
	check("after that", "2", nil, "2")
}

func TestResumeWithoutAnswer(t *testing.T) {
	var version atomic.Value
	version.Store("1")
	cfg := fakeEngine(t, &version)
	resume(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e, err := Resume(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Confirm(); err == nil {
		t.Error("facts are confirmed that nobody has asked for")
	}
}

func TestResumeUnavailable(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	cfg := Config{Host: "tcp://" + srv.Listener.Addr().String(), CacheDir: t.TempDir()}
	srv.Close()
	if _, err := Resume(t.Context(), cfg); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Resume() = %v, want %v", err, ErrUnavailable)
	}
	known, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	known.facts.ID = "one"
	if err := known.remember(); err != nil {
		t.Fatal(err)
	}
	if err := resume(t, cfg).Confirm(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Confirm() = %v, want %v", err, ErrUnavailable)
	}
}
