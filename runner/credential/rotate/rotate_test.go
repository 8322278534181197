package rotate

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
