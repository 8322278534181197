package rotate

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

func TestRotate(t *testing.T) {
	for _, source := range []string{"env", "file"} {
		w := newWorld(t, source)
		var said []string
		result, err := Rotate(t.Context(), w.credential(), w.config(), Options{Say: func(s string) { said = append(said, s) }})
		if err != nil {
			t.Fatal(err)
		}
		w.finished(source, 0)
		want := Result{
			Contract: 1, Credential: "model", OldID: w.oldID, NewID: "key_2", Revocation: event.RevocationVerified, Orphans: []string{},
			Stores: []StoreResult{
				{"the Actions secret MODEL_KEY of acme/shop", true},
				{"the Actions secret MODEL_KEY of acme/shop, environment production", true},
				{"the Actions secret MODEL_KEY of the organisation acme", true},
				{"Vault's kv/data/ci/model#key", true},
				{"the file ./key", true},
			},
		}
		if diff := cmp.Diff(want, result); diff != "" {
			t.Errorf("%s: result (-want +got):\n%s", source, diff)
		}
		if got := w.github.OrganizationSecretRepositories("acme", "MODEL_KEY"); !slices.Equal(got, []int64{w.shop.ID}) {
			t.Errorf("the organisation's secret is for %v, want the repositories that it was for", got)
		}
		data, version := w.vault.Data("ci/model")
		if other, _ := json.Marshal(data["other"]); version != 2 || string(other) != `{"n":12345678901234567}` {
			t.Errorf("Vault's other field is %s, in version %d", other, version)
		}
		if st, err := os.Stat(filepath.Join(w.dir, "key")); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the file's mode: %v, %v", st.Mode(), err)
		}
		w.noSecrets(strings.Join(said, "\n"))
		age, err := w.config().Age(t.Context(), w.credential(), secret.New(w.places()["file"]))
		if err != nil || age.State != event.AgeFresh || age.Basis != basisRotated || age.Provenance != observed {
			t.Errorf("the new key's age is %+v, %v", age, err)
		}
	}
}

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

func TestRotateCancelled(t *testing.T) {
	for _, point := range points(t) {
		w := newWorld(t, "env")
		ctx, cancel := context.WithCancel(t.Context())
		r := &rotation{cfg: w.config(), c: w.credential(), at: func(at string) {
			if at == point {
				cancel()
			}
		}}
		_, err := r.rotate(ctx)
		w.alive(point)
		cancel()
		last := strings.HasPrefix(point, "the old key is revoked") || point == "before revoking"
		if err == nil && !strings.Contains(point, "revok") {
			t.Errorf("%s: a cancelled rotation succeeded", point)
		}
		if err != nil && last && point != "before revoking" {
			t.Errorf("%s: %v", point, err)
		}
		if err == nil {
			w.finished(point, 0)
			continue
		}
		if _, err := Rotate(t.Context(), w.credential(), w.config(), Options{}); err != nil {
			t.Fatalf("%s: the next call: %v", point, err)
		}
		w.finished(point, 0)
	}
}

// unchanged checks that the old key is everywhere, and the only one.
func (w *world) unchanged(when string) {
	w.t.Helper()
	for place, key := range w.places() {
		if key != w.old {
			w.t.Errorf("%s: the %s has another key", when, place)
		}
	}
	if live := w.provider.Live(); len(live) != 1 || live[w.oldID] != w.old {
		w.t.Errorf("%s: the provider has %d keys", when, len(live))
	}
	if j, err := w.config().pending(w.credential()); j != nil || err != nil {
		w.t.Errorf("%s: a rotation is pending: %+v, %v", when, j, err)
	}
}

// What fails before a new key is in use leaves all as it was.
func TestRotateRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*world)
		want   string
	}{
		"no admin":             {func(w *world) { delete(w.env, "ADMIN") }, "the token for the rotation: the variable ADMIN is not set"},
		"wrong admin":          {func(w *world) { w.env["ADMIN"] = "x" }, "the provider made no new key"},
		"too many keys":        {func(w *world) { w.provider.Most(1) }, "409"},
		"no present key":       {func(w *world) { delete(w.env, "MODEL_KEY") }, "the present key of model"},
		"a dead present key":   {func(w *world) { w.env["MODEL_KEY"] = "sk-test-dead" }, "identify the present key"},
		"no GitHub token":      {func(w *world) { delete(w.env, "GH_TOKEN") }, "GH_TOKEN is not set"},
		"a wrong GitHub token": {func(w *world) { w.env["GH_TOKEN"] = "ghs_x" }, "may not ask for secrets"},
		"no Vault token":       {func(w *world) { w.env["VAULT_TOKEN"] = "x" }, "does not let the token in"},
		"no field in Vault":    {func(w *world) { w.vault.Put("ci/model", map[string]any{"a": 1}, time.Now()) }, "no field"},
		"a new key that does not work": {func(w *world) {
			w.provider.After(func(r *http.Request) int {
				if r.URL.Path == "/v1/models" {
					return 401
				}
				return 0
			})
		}, "the new key does not work"},
		"an answer without a key": {func(w *world) {
			w.provider.After(func(r *http.Request) int {
				if r.Method == http.MethodPost {
					return 403 // and it was made all the same: a provider that lies
				}
				return 0
			})
		}, "the provider made no new key"},
		"the first place refuses": {func(w *world) {
			w.github.Inject(declined(http.MethodPut, "/repos/acme/shop/actions/secrets"))
		}, "store the new key in the Actions secret MODEL_KEY of acme/shop"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "env")
			tt.change(w)
			_, err := Rotate(t.Context(), w.credential(), w.config(), Options{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			w.noSecrets(err.Error())
			if name != "an answer without a key" && name != "no field in Vault" {
				w.unchanged(name)
			}
		})
	}
}

// What fails later leaves both keys, and the next call goes on.
func TestRotateGoesOn(t *testing.T) {
	for name, tt := range map[string]struct {
		fault func(w *world) (end func())
		want  string
	}{
		"the second place refuses": {func(w *world) func() {
			return w.github.Inject(declined(http.MethodPut, "/repos/acme/shop/environments"))
		}, "environment production"},
		"the old key can't be revoked": {func(w *world) func() {
			w.provider.After(func(r *http.Request) int {
				if r.Method == http.MethodDelete {
					return 503
				}
				return 0
			})
			return func() { w.provider.After(nil) }
		}, "could not be revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "env")
			end := tt.fault(w)
			_, err := Rotate(t.Context(), w.credential(), w.config(), Options{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			w.alive(name)
			w.noSecrets(err.Error())
			end()
			result, err := Rotate(t.Context(), w.credential(), w.config(), Options{})
			if err != nil || !result.Resumed {
				t.Fatalf("the next call: %+v, %v", result, err)
			}
			w.finished(name, 0)
		})
	}
}

// A key that is stored where its source does not read it must not cost the old one.
func TestRotateStoredElsewhere(t *testing.T) {
	w := newWorld(t, "file")
	w.write("elsewhere", w.old, 0o600)
	src := strings.Replace(w.recipe(), "{file: ./key}", "{file: ./elsewhere}", 1)
	_, err := Rotate(t.Context(), loadCredential(t, src), w.config(), Options{})
	if err == nil || !strings.Contains(err.Error(), "file:./key does not give it") || !w.provider.Works(w.old) {
		t.Errorf("error %v; the old key works: %v", err, w.provider.Works(w.old))
	}
	if _, err = Rotate(t.Context(), w.credential(), w.config(), Options{}); err != nil {
		t.Fatal(err)
	}
	w.finished("with the place mended", 0)
}

// What the source gives after a rotation in the same shell is the dead key: it is not rotated again.
func TestRotateTwice(t *testing.T) {
	w := newWorld(t, "env")
	if _, err := Rotate(t.Context(), w.credential(), w.config(), Options{}); err != nil {
		t.Fatal(err)
	}
	_, err := Rotate(t.Context(), w.credential(), w.config(), Options{})
	if err == nil || !strings.Contains(err.Error(), "was revoked on") {
		t.Errorf("with the dead key: %v", err)
	}
	w.finished("refused", 0)
	w.next("a new job")
	w.provider.After(func(r *http.Request) int {
		if r.URL.Path == "/v1/key" {
			return 500 // the book knows the id
		}
		return 0
	})
	if result, err := Rotate(t.Context(), w.credential(), w.config(), Options{}); err != nil || result.OldID != "key_2" {
		t.Fatalf("with the new key: %+v, %v", result, err)
	}
	w.finished("twice", 0)
}

func TestRotateOneAtATime(t *testing.T) {
	w := newWorld(t, "env")
	var second error
	r := &rotation{cfg: w.config(), c: w.credential(), at: func(point string) {
		if point == "the key is made" {
			_, second = Rotate(t.Context(), w.credential(), w.config(), Options{})
		}
	}}
	if _, err := r.rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second == nil || !strings.Contains(second.Error(), "another rotation is at work") {
		t.Errorf("the second one: %v", second)
	}
	w.finished("the first one", 0)
}

// Commands have the secrets in their environment, and not in their arguments.
func TestRotateByCommands(t *testing.T) {
	w := newWorld(t, "file")
	script := func(name, body string) string {
		w.write(name, "#!/bin/sh\nset -eu\ncase \"$*\" in *sk-test*|*admin*) exit 9;; esac\n"+body+"\n", 0o700)
		return filepath.Join(w.dir, name)
	}
	src := strings.NewReplacer("DIR", w.dir, "CREATE", script("create", `[ "$AGENT_SANDBOX_TOKEN" = "$(cat "$1/admin")" ]; echo sk-test-new0123456789; echo made >&2`),
		"PROVE", script("prove", `grep -qxF "$AGENT_SANDBOX_NEW" "$1/live"`),
		"STORE", script("store", `printf %s "$AGENT_SANDBOX_NEW" >"$1/stored"`),
		"REVOKE", script("revoke", `grep -vxF "$AGENT_SANDBOX_OLD" "$1/live" >"$1/rest"; mv "$1/rest" "$1/live"`)).Replace(`version: 1
credentials:
  model:
    from: file:./key
    rotation:
      token: env:ADMIN
      create: {command: [CREATE, DIR]}
      prove: {command: [PROVE, DIR]}
      store: [{file: ./key}, {command: [STORE, DIR]}]
      revoke: {command: [REVOKE, DIR]}
`)
	w.write("admin", w.provider.Admin, 0o600)
	w.write("live", w.old+"\nsk-test-new0123456789\n", 0o600)
	result, err := Rotate(t.Context(), loadCredential(t, src), w.config(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"key": "sk-test-new0123456789\n", "stored": "sk-test-new0123456789", "live": "sk-test-new0123456789\n"} {
		if got, err := os.ReadFile(filepath.Join(w.dir, name)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if result.Revocation != event.RevocationVerified || result.Stores[1].Verified {
		t.Errorf("result %+v", result)
	}
}

func TestPick(t *testing.T) {
	answer := secret.New(`{"a": {"b/c": ["x", {"~": "y"}]}, "n": 12345678901234567890, "e": "", "o": {}}`)
	for pointer, want := range map[string]string{"/a/b~1c/0": "x", "/a/b~1c/1/~0": "y", "/n": "12345678901234567890", "/e": "", "/o": "", "/a/b~1c/2": "", "/a/b~1c/x": "", "/n/x": "", "/z": ""} {
		if got, err := pick(answer, pointer); got != want || (err == nil) != (want != "") {
			t.Errorf("pick(%q) = %q, %v, want %q", pointer, got, err, want)
		}
	}
	if got, err := pick(secret.New(" key\n"), ""); got != "key" || err != nil {
		t.Errorf("the whole answer is %q, %v", got, err)
	}
	if _, err := pick(secret.New("no JSON"), "/a"); err == nil {
		t.Error("an answer that is no JSON was taken")
	}
}

// Each value is escaped for where it stands.
func TestRequest(t *testing.T) {
	v := values{token: secret.New(`t"&`), newID: "a/b?c"}
	for kind, want := range map[string]string{"": `{"k":"t\"\u0026"}`, "application/x-www-form-urlencoded": `{"k":"t%22%26"}`} {
		step := policy.RotationStep{Request: policy.StepRequest{Method: "POST", URL: "https://api.example.com/{new-id}"}, Body: `{"k":"{token}"}`, Headers: map[string]string{"X-A": "{token}"}}
		if kind != "" {
			step.Headers["Content-Type"] = kind
		}
		req, err := request(t.Context(), step, v)
		if err != nil {
			t.Fatal(err)
		}
		body := make([]byte, 100)
		n, _ := req.Body.Read(body)
		if string(body[:n]) != want || req.URL.EscapedPath() != "/a%2Fb%3Fc" || req.Header.Get("X-A") != `t"&` {
			t.Errorf("%q: %s %s %v", kind, req.URL, body[:n], req.Header)
		}
	}
}
