package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/org/agent-sandbox/runner/engine"
)

// fakeEngine answers what a watcher asks an engine, as Docker's API does.
type fakeEngine struct {
	mu         sync.Mutex // guards what follows
	containers map[string]string
	removed    []string
	asked      int
	appears    func(asked int) (id string) // a container that is there from this question on; "" for none
}

const watchedRun = "20261123-152240-3k7f9c"

func (f *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	id := strings.TrimPrefix(path, "containers/")
	switch {
	case strings.HasSuffix(r.URL.Path, "/_ping"):
		w.Header().Set("Api-Version", "1.41")
	case path == "info":
		_, _ = io.WriteString(w, `{"ID":"fake"}`)
	case path == "containers/json":
		f.list(w, r)
	case path == "volumes":
		_, _ = io.WriteString(w, `{"Volumes":[{"Name":"agent-sandbox-guest-0123","Labels":{"agent-sandbox":"`+watchedRun+`"}}]}`)
	case r.Method == http.MethodDelete && f.containers[id] != "":
		delete(f.containers, id)
		f.removed = append(f.removed, id)
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, `{"message":"no `+r.Method+" "+path+`"}`, http.StatusNotFound)
	}
}

func (f *fakeEngine) list(w io.Writer, r *http.Request) {
	f.asked++
	if f.appears != nil {
		if id := f.appears(f.asked); id != "" {
			f.containers[id] = watchedRun
		}
	}
	list := []map[string]any{}
	for id, run := range f.containers {
		if strings.Contains(r.URL.Query().Get("filters"), "agent-sandbox="+run) {
			list = append(list, map[string]any{"Id": id, "Labels": map[string]string{"agent-sandbox": run}})
		}
	}
	_ = json.NewEncoder(w).Encode(list)
}

// serveEngine makes a socket for a fake engine.
func serveEngine(t *testing.T, f *fakeEngine) engine.Config {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: f}}
	s.Start()
	t.Cleanup(s.Close)
	return engine.Config{Host: "unix://" + socket}
}

// orders is what a runner has told its watcher until it died.
func orders(t *testing.T, cfg engine.Config, told string) io.Reader {
	t.Helper()
	b, err := json.Marshal(watchOrder{Run: watchedRun, Engine: cfg})
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReader(string(b) + "\n" + told)
}

// TestWatchRemoves: what is there goes, what belongs to others stays, and the watcher does not linger.
func TestWatchRemoves(t *testing.T) {
	f := &fakeEngine{containers: map[string]string{"ours": watchedRun, "theirs": "20261123-152240-000000"}}
	if err := Watch(t.Context(), orders(t, serveEngine(t, f), "+-+-")); err != nil {
		t.Fatal(err)
	}
	if len(f.removed) != 1 || f.removed[0] != "ours" {
		t.Errorf("removed %q", f.removed)
	}
	if f.asked != 2 { // the second time to see that nothing is left
		t.Errorf("the engine was asked %d times, with nothing being created", f.asked)
	}
}

// TestWatchWaits: the runner died while something was being created, and it appears only later.
func TestWatchWaits(t *testing.T) {
	f := &fakeEngine{containers: map[string]string{}, appears: func(asked int) string {
		if asked == 5 {
			return "late"
		}
		return ""
	}}
	if err := Watch(t.Context(), orders(t, serveEngine(t, f), "+-+")); err != nil {
		t.Fatal(err)
	}
	if len(f.removed) != 1 {
		t.Errorf("removed %q after %d questions", f.removed, f.asked)
	}
}

// TestWatchEngineGone: it tries again, and gives up with its time.
func TestWatchEngineGone(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*watchPause)
	defer cancel()
	err := Watch(ctx, orders(t, engine.Config{Host: "unix://" + filepath.Join(t.TempDir(), "none")}, ""))
	if err == nil {
		t.Error("it claims success")
	}
}

func TestWatchRefusesNonsense(t *testing.T) {
	for _, text := range []string{"", "{}\n", "hello\n", `{"run":""}` + "\n", `{"run":"` + watchedRun + `"}`} {
		if err := Watch(t.Context(), strings.NewReader(text)); err == nil {
			t.Errorf("the order %q was taken", text)
		}
	}
}

// TestWatcherProcess: it is told everything, and ends at a word.
func TestWatcherProcess(t *testing.T) {
	var told bytes.Buffer
	cmd := exec.Command("cat")
	cmd.Stdout = &told
	w, err := startWatcher(cmd, watchOrder{Run: watchedRun})
	if err != nil {
		t.Fatal(err)
	}
	w.creating()()
	w.creating()
	_ = w.pipe.Close()
	_ = cmd.Wait()
	if want := `{"run":"` + watchedRun + `","engine":{"Host":"","CacheDir":""}}` + "\n+-+"; told.String() != want {
		t.Errorf("it was told %q, want %q", told.String(), want)
	}

	endless := exec.Command("sleep", "1000")
	if w, err = startWatcher(endless, watchOrder{Run: watchedRun}); err != nil {
		t.Fatal(err)
	}
	w.dismiss()
	if endless.ProcessState == nil {
		t.Error("a dismissed watcher is still there")
	}
}

func TestNoWatcher(t *testing.T) {
	w, err := startWatcher(nil, watchOrder{})
	if w != nil || err != nil {
		t.Errorf("%v, %v", w, err)
	}
	w.creating()()
	w.leave()
	w.dismiss()
}
