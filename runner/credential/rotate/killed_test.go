package rotate

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// points are all places where a rotation can be stopped.
func points(t *testing.T) []string {
	t.Helper()
	w := newWorld(t, "env")
	var all []string
	r := &rotation{cfg: w.config(), c: w.credential(), at: func(point string) { all = append(all, point) }}
	if _, err := r.rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(all) < 14 {
		t.Fatalf("only %d points: %q", len(all), all)
	}
	return all
}

// next are the ways in which the next call may find the source: as it was, or as the repository's secret is now.
func (w *world) next(shell string) {
	if shell == "a new job" {
		w.env["MODEL_KEY"] = w.places()["repository"]
	}
}

// lostAt tells how many keys nobody can know of after a stop at a point.
func lostAt(point string) int {
	if point == "the key is made" {
		return 1
	}
	return 0
}

func TestRotateKilled(t *testing.T) {
	all := points(t)
	for _, source := range []string{"env", "file"} {
		for _, shell := range []string{"the same shell", "a new job"} {
			if source == "file" && shell == "a new job" {
				continue // a file is what it is
			}
			for _, point := range all {
				t.Run(strings.Join([]string{source, shell, point}, "/"), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, source)
					kill(t, w, point)
					w.alive("killed")
					w.noSecrets()
					w.next(shell)
					result, err := Rotate(t.Context(), w.credential(), w.config(), Options{})
					if err != nil {
						t.Fatalf("the next call: %v", err)
					}
					w.finished("the next call", lostAt(point))
					if result.Resumed != (point != "before creating") {
						t.Errorf("resumed: %v", result.Resumed)
					}
				})
			}
		}
	}
}

// kill has a process rotate that kills itself at a point.
func kill(t *testing.T, w *world, point string) {
	t.Helper()
	order, err := json.Marshal(childOrder{w.recipe(), w.dir, w.github.API(), point, w.env})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(order))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() == 3 || strings.Contains(string(out), "still alive") {
		t.Fatalf("the child was not killed: %v\n%s", err, out)
	}
}

// A kill in the middle of what a killed one left, twice over.
func TestRotateKilledAgain(t *testing.T) {
	for _, second := range []string{"the key is made", "before created", "store 0 is next", "store 1 is next", "all places have it", "the old key is revoked"} {
		t.Run(second, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "env")
			kill(t, w, "store 1 is next") // the repository has another key than Vault and the file
			kill(t, w, second)
			w.alive("killed twice")
			w.next("a new job")
			if _, err := Rotate(t.Context(), w.credential(), w.config(), Options{}); err != nil {
				t.Fatal(err)
			}
			w.finished("the third call", lostAt(second))
		})
	}
}
