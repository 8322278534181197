package manifest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/runnertest"
)

func newRekor(t testing.TB, address string) *Rekor {
	t.Helper()
	r, err := NewRekor(address)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestEnter: what we sign is in the log, of either version, and verifies; also if the log's first answer got lost.
func TestEnter(t *testing.T) {
	a := newAuthorities(t)
	statement, files := recorded(t, testRun)
	for name, tt := range map[string]struct {
		second, timed, deaf bool
	}{
		"first version": {false, true, false}, "second version": {true, true, false},
		"the log's time alone": {false, false, false}, "taken in before, first": {false, true, true}, "taken in before, second": {true, true, true},
	} {
		log := runnertest.NewRekor(t, afterRun, tt.second)
		log.Deaf = tt.deaf
		s := keyless(a)
		s.Instance.Log = newRekor(t, log.Serve())
		if !tt.timed {
			s.Instance.Time = nil
		}
		accept := Acceptance{Identity: a.ID.Subject, Issuer: a.ID.Issuer, Trusted: trustedWith(t, a, log), RequireLog: true, Files: files}
		r := Verify(signed(t, s, statement), accept)
		if !r.OK() || r.State(AxisLog) != Passed || r.State(AxisTime) != Passed {
			t.Errorf("%s: %+v", name, r.Verdicts)
		}
	}
}

// TestEnterFails: without the log the signature is kept and says what it lacks, unless nobody else says when it was made. An answer that is
// about something else is told.
func TestEnterFails(t *testing.T) {
	a := newAuthorities(t)
	statement, _ := recorded(t, testRun)
	log := runnertest.NewRekor(t, afterRun, false)
	good := signed(t, keyless(a), statement)
	other := log.Log(good, "dsse 0.0.1", nil)
	for name, answer := range map[string]string{
		"refused": "", "no JSON": "<html>", "nothing": "{}", "two entries": `{"a":{},"b":{}}`, "no proof": `{"a":{"body":"e30="}}`,
		"no hex": `{"a":{"body":"e30=","logID":"x","verification":{"signedEntryTimestamp":"AA==","inclusionProof":{"rootHash":"zz"}}}}`,
	} {
		for _, path := range []string{rekorPath1, rekorPath2} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if answer == "" {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				w.WriteHeader(http.StatusCreated)
				_, _ = w.Write([]byte(answer))
			}))
			s := keyless(a)
			s.Instance.Log = newRekor(t, server.URL+path)
			got, err := s.Sign(t.Context(), statement)
			if err != nil || got.Lacks == nil || !strings.HasPrefix(got.Lacks.Error(), "log of signatures: ") {
				t.Errorf("%s, %s: lacks %v, %v", name, path, got.Lacks, err)
			}
			accept := Acceptance{Identity: a.ID.Subject, Issuer: a.ID.Issuer, Trusted: trustedWith(t, a, log)}
			if r := Verify(got.File, accept); !r.OK() || r.State(AxisLog) != Skipped {
				t.Errorf("%s, %s: %+v", name, path, r.Verdicts)
			}
			s.Instance.Time = nil
			if got, err := s.Sign(t.Context(), statement); err == nil {
				t.Errorf("%s, %s: signed with nobody's time: %s", name, path, got.File)
			}
			server.Close()
		}
	}
	entry, err := Open(other)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(entry.Bundle.VerificationMaterial.TlogEntries[0])
	}))
	defer server.Close()
	s := keyless(a)
	s.Instance.Log = newRekor(t, server.URL+rekorPath2)
	if got, err := s.Sign(t.Context(), statement); err != nil || got.Lacks == nil || !strings.Contains(got.Lacks.Error(), "about another signature") {
		t.Errorf("another entry: lacks %v, %v", got.Lacks, err)
	}
}

// TestInstances: who can't see when it was signed refuses to sign; public repositories alone are in the public log.
func TestInstances(t *testing.T) {
	for _, address := range []string{"https://rekor.sigstore.dev", "https://rekor.sigstore.dev/api/v3/log/entries", ""} {
		if r, err := NewRekor(address); err == nil {
			t.Errorf("NewRekor(%q) = %+v", address, r)
		}
	}
	first, second := newRekor(t, "https://a.test"+rekorPath1), newRekor(t, "https://a.test"+rekorPath2)
	for name, tt := range map[string]struct {
		at   Instance
		want bool
	}{
		"nobody": {Instance{Fulcio: "https://f.test"}, false}, "a log without time": {Instance{Fulcio: "https://f.test", Log: second}, false},
		"a log with time": {Instance{Fulcio: "https://f.test", Log: first}, true}, "an authority": {Instance{Fulcio: "https://f.test", Time: &TimestampAuthority{}}, true},
		"public": {instanceFor("public"), true}, "private": {instanceFor("private"), true}, "unknown": {instanceFor(""), true},
	} {
		if err := tt.at.Check(); (err == nil) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if public, private, unknown := instanceFor("public"), instanceFor("private"), instanceFor(""); public.Log == nil || private.Log != nil || unknown.Log != nil {
		t.Errorf("logs: %+v, %+v, %+v", public.Log, private.Log, unknown.Log)
	}
}
