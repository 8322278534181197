package credential

import (
	"net/http"
	"testing"
	"time"
)

// usable is what GitHub says of a token in a request that begins now.
func (w *world) usable(t *testing.T, token string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.API()+"/repos/acme/shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "token "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// A renewal in the middle of a push: the next request has a token that is good, and the one that the push began with stays so until its own end.
// Without the renewal the next request fails; a renewal that ended the old token would take it from the push.
func TestRenewalWithinAPush(t *testing.T) {
	for name, tt := range map[string]struct {
		frozen  bool // the clock of who renews: there are no renewals
		ends    bool // what was replaced is revoked at once
		old     bool // the first token is usable after a renewal
		present bool // a request that begins after an hour has a usable token
	}{
		"as it is":             {old: true, present: true},
		"no renewal":           {frozen: true, old: true},
		"the old one is ended": {ends: true, present: true},
	} {
		w := newWorld(t, appPolicy)
		if tt.frozen {
			now := w.Now()
			w.cfg.Now = func() time.Time { return now }
		}
		set, err := Resolve(t.Context(), w.policy.Credentials, w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		value := func() string {
			v, err := set.Grants[0].Value(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return v.Reveal()
		}
		first := value()
		w.Advance(56 * time.Minute)
		value()
		if h := set.held[0]; tt.ends {
			if _, err := h.issuer.(revoker).revoke(t.Context(), h.past[0].value); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.usable(t, first); got != tt.old {
			t.Errorf("%s: the first token is usable after 56 minutes: %v, want %v", name, got, tt.old)
		}
		w.Advance(5 * time.Minute)
		if got := w.usable(t, value()); got != tt.present {
			t.Errorf("%s: the present token is usable after 61 minutes: %v, want %v", name, got, tt.present)
		}
		if w.usable(t, first) {
			t.Errorf("%s: the first token is usable after its end", name)
		}
		_ = set.Close(t.Context()) // which can't revoke in each of these
	}
}
