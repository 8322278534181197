//go:build docker

package engine

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/client"
)

// TestFillAfterTheDead: somebody died while filling, and two who wait for it lose patience at once. The one that comes
// to the removal last must not take away the container through which the other fills by now.
func TestFillAfterTheDead(t *testing.T) {
	e, image := probing(t)
	const run, name = "fill-after-the-dead", guestVolume + "fill-after-the-dead"
	defer leaveNothing(t, e, run)
	defer func() {
		if err := e.api.VolumeRemove(t.Context(), name, false); err != nil {
			t.Error(err)
		}
	}()
	by := func(e *Engine) filling {
		return filling{engine: e, run: run, image: Image{ID: image}, volume: name, patience: 100 * time.Millisecond}
	}
	if _, err := by(e).claim(t.Context()); err != nil {
		t.Fatal(err)
	}

	waits, filling, removed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	late := by(hooked(t, e, func(r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/wait"):
			close(waits)
		case r.Method == http.MethodDelete:
			<-filling
		}
	}))
	early := by(hooked(t, e, func(r *http.Request) {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/archive") {
			close(filling)
			if err := <-removed; err != nil {
				t.Errorf("late: %v", err)
			}
		}
	}))
	go func() { removed <- late.await(t.Context()) }()
	<-waits
	if _, err := early.fill(t.Context(), []file{{filled, 0o444, nil}}); err != nil {
		t.Error(err)
	}
}

// hooked is a connection to the engine that calls hook before each request.
func hooked(t *testing.T, like *Engine, hook func(*http.Request)) *Engine {
	t.Helper()
	caller := &http.Client{Transport: new(http.Transport)}
	api, err := client.NewClientWithOpts(client.WithHTTPClient(caller), client.WithHost(like.api.DaemonHost()), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	caller.Transport = hookedTransport{caller.Transport, hook}
	return &Engine{api: api}
}

type hookedTransport struct {
	http.RoundTripper
	hook func(*http.Request)
}

func (h hookedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	h.hook(r)
	return h.RoundTripper.RoundTrip(r)
}
