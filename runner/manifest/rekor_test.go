package manifest

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/runnertest"
)

func afterRun() time.Time { return testTime().Add(time.Minute) }

// trustedWith is a root that trusts logs too.
func trustedWith(t testing.TB, a authorities, logs ...*runnertest.Rekor) *TrustedRoot {
	t.Helper()
	root, err := ParseTrustedRoot(a.TrustedRoot(logs...))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// withoutTime is a bundle without its timestamp.
func withoutTime(t testing.TB, bundle []byte) []byte {
	t.Helper()
	return editBundle(t, bundle, func(m map[string]any) { delete(m, "timestampVerificationData") })
}

// editBundle changes the material of a bundle.
func editBundle(t testing.TB, bundle []byte, edit func(material map[string]any)) []byte {
	t.Helper()
	return editWhole(t, bundle, func(whole map[string]any) { edit(whole["verificationMaterial"].(map[string]any)) })
}

// editEnvelope changes a field of a bundle's envelope.
func editEnvelope(t testing.TB, bundle []byte, field string, value any) []byte {
	t.Helper()
	return editWhole(t, bundle, func(whole map[string]any) { whole["dsseEnvelope"].(map[string]any)[field] = value })
}

func editWhole(t testing.TB, bundle []byte, edit func(whole map[string]any)) []byte {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal(bundle, &whole); err != nil {
		t.Fatal(err)
	}
	edit(whole)
	out, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLog: the log's word is checked where there is one, and asked for where nobody else says when it was signed.
func TestLog(t *testing.T) {
	a := newAuthorities(t)
	statement, _ := recorded(t, testRun)
	key, public := newKeySigner(t, "ecdsa-p256", nil)
	byKey, byCert := signed(t, key, statement), signed(t, keyless(a), statement)
	first, second, foreign := runnertest.NewRekor(t, afterRun, false), runnertest.NewRekor(t, afterRun, true), runnertest.NewRekor(t, afterRun, false)
	late := runnertest.NewRekor(t, func() time.Time { return testTime().Add(time.Hour) }, false)
	cert := func(root *TrustedRoot, required bool) Acceptance {
		return Acceptance{Identity: a.ID.Subject, Issuer: a.ID.Issuer, Trusted: root, RequireLog: required}
	}
	both := trustedWith(t, a, first, second, late)
	const dsse1, dsse2 = "dsse 0.0.1", "dsse 0.0.2"
	for name, tt := range map[string]struct {
		file   []byte
		accept Acceptance
		want   string // syntax, signature, identity, time, binding, policy; log
	}{
		"no log":                            {byCert, cert(both, false), "++++.. ."},
		"no log, one required":              {byCert, cert(both, true), "++++.. !"},
		"no log, none trusted":              {byCert, cert(a.trusted(t), true), "++++.. !"},
		"first version":                     {first.Log(byCert, dsse1, nil), cert(both, true), "++++.. +"},
		"second version":                    {second.Log(byCert, dsse2, nil), cert(both, true), "++++.. +"},
		"a log that is not trusted":         {foreign.Log(byCert, dsse1, nil), cert(both, false), "++++.. !"},
		"no log is trusted":                 {first.Log(byCert, dsse1, nil), cert(a.trusted(t), false), "++++.. ."},
		"no log is trusted, one required":   {first.Log(byCert, dsse1, nil), cert(a.trusted(t), true), "++++.. !"},
		"the log's time alone":              {first.Log(withoutTime(t, byCert), dsse1, nil), cert(both, false), "++++.. +"},
		"the log has no time":               {second.Log(withoutTime(t, byCert), dsse2, nil), cert(both, false), "+++!.. +"},
		"the log's time, none trusted":      {first.Log(withoutTime(t, byCert), dsse1, nil), cert(a.trusted(t), false), "+++!.. ."},
		"logged when it had expired":        {late.Log(byCert, dsse1, nil), cert(both, false), "+++!.. +"},
		"logged when it had expired, alone": {late.Log(withoutTime(t, byCert), dsse1, nil), cert(both, false), "+++!.. +"},
		"key":                               {first.Log(byKey, dsse1, publicPEM(t, public)), Acceptance{Key: public, Trusted: both, RequireLog: true}, "++++.. +"},
		"key, second version":               {second.Log(byKey, dsse2, publicPEM(t, public)), Acceptance{Key: public, Trusted: both, RequireLog: true}, "+++... +"},
		"key, no root":                      {first.Log(byKey, dsse1, publicPEM(t, public)), Acceptance{Key: public}, "+++... ."},
		"key, no root, one required":        {first.Log(byKey, dsse1, publicPEM(t, public)), Acceptance{Key: public, RequireLog: true}, "+++... !"},
		"unsigned, one required":            {signed(t, Unsigned{}, statement), Acceptance{Key: public, RequireLog: true}, "+!.... ."},
	} {
		r := Verify(tt.file, tt.accept)
		letter := map[State]string{Passed: "+", Failed: "!", Skipped: "."}[r.State(AxisLog)]
		if got := states(r) + " " + letter; got != tt.want {
			t.Errorf("%s: %s, want %s\n%+v", name, got, tt.want, r.Verdicts)
		}
		if want := !strings.Contains(tt.want, "!"); r.OK() != want {
			t.Errorf("%s: OK is %t, want %t", name, r.OK(), want)
		}
	}
}

// TestLogKinds: all kinds of entries that logs have of an envelope are read, and one that is about something else is told.
func TestLogKinds(t *testing.T) {
	a := newAuthorities(t)
	statement, _ := recorded(t, testRun)
	ours, other := signed(t, keyless(a), statement), signed(t, keyless(a), statement)
	for _, second := range []bool{false, true} {
		log := runnertest.NewRekor(t, afterRun, second)
		accept := Acceptance{Identity: a.ID.Subject, Issuer: a.ID.Issuer, Trusted: trustedWith(t, a, log), RequireLog: true}
		for _, kind := range runnertest.LogKinds(second) {
			good := log.Log(ours, kind, nil)
			if r := Verify(good, accept); !r.OK() || r.State(AxisLog) != Passed {
				t.Errorf("%s: %+v", kind, r.Verdicts)
			}
			var theirs struct {
				Material struct {
					Entries []any `json:"tlogEntries"`
				} `json:"verificationMaterial"`
			}
			if err := json.Unmarshal(log.Log(other, kind, nil), &theirs); err != nil {
				t.Fatal(err)
			}
			swapped := editBundle(t, good, func(m map[string]any) { m["tlogEntries"] = theirs.Material.Entries })
			if r := Verify(swapped, accept); r.State(AxisLog) != Failed {
				t.Errorf("%s: with the entry of another manifest: %+v", kind, r.Verdicts)
			}
		}
	}
}

// TestLogOtherParts: an entry that shares all but one thing with the manifest is about something else.
func TestLogOtherParts(t *testing.T) {
	a := newAuthorities(t)
	statement, _ := recorded(t, testRun)
	ours, other := signed(t, keyless(a), statement), signed(t, keyless(a), statement)
	for _, second := range []bool{false, true} {
		log := runnertest.NewRekor(t, afterRun, second)
		accept := Acceptance{Identity: a.ID.Subject, Issuer: a.ID.Issuer, Trusted: trustedWith(t, a, log), RequireLog: true}
		for _, kind := range runnertest.LogKinds(second) {
			for what, logged := range map[string][]byte{
				"signer":    editBundle(t, ours, func(m map[string]any) { m["certificate"] = materialOf(t, other)["certificate"] }),
				"signature": editEnvelope(t, ours, "signatures", []map[string][]byte{{"sig": []byte("another")}}),
				"statement": editEnvelope(t, ours, "payload", []byte("{}")),
			} {
				entries := materialOf(t, log.Log(logged, kind, nil))["tlogEntries"]
				forged := editBundle(t, ours, func(m map[string]any) { m["tlogEntries"] = entries })
				if r := Verify(forged, accept); r.State(AxisLog) != Failed {
					t.Errorf("%s: another %s: %+v", kind, what, r.Verdicts)
				}
			}
		}
	}
}

// materialOf is what a bundle is verified by.
func materialOf(t *testing.T, bundle []byte) (material map[string]any) {
	t.Helper()
	editBundle(t, bundle, func(m map[string]any) { material = m })
	return material
}

// TestLogTampered changes every single value of an entry: none of them passes, but for the hints that are in it.
func TestLogTampered(t *testing.T) {
	a := newAuthorities(t)
	statement, _ := recorded(t, testRun)
	ours := signed(t, keyless(a), statement)
	for _, second := range []bool{false, true} {
		log := runnertest.NewRekor(t, afterRun, second)
		accept := Acceptance{Identity: a.ID.Subject, Issuer: a.ID.Issuer, Trusted: trustedWith(t, a, log), RequireLog: true}
		for _, kind := range runnertest.LogKinds(second) {
			file := log.Log(ours, kind, nil)
			if r := Verify(file, accept); !r.OK() {
				t.Fatalf("the positive control failed: %+v", r.Verdicts)
			}
			n := 0
			editBundle(t, file, func(m map[string]any) {
				leaves(m["tlogEntries"], func(path string, _ func(any)) {
					n++
					forged := editBundle(t, file, func(to map[string]any) { to["tlogEntries"] = m["tlogEntries"] })
					if r := Verify(forged, accept); r.OK() {
						t.Errorf("%s: %s: changed, and %+v", kind, path, r.Verdicts)
					}
				})
			})
			if n < 11 {
				t.Errorf("%s: %d values were changed", kind, n)
			}
		}
	}
}

// TestLogPublic: the entry of a real bundle, that of the job in publicGood, is in sigstore's public log by the log's promise and by its proof,
// each by itself; and nothing in it can be another.
func TestLogPublic(t *testing.T) {
	leaf, rootFile := publicGood(t)
	root, err := ParseTrustedRoot(rootFile)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join("testdata", "public-good", "bundle.json"))
	if err != nil {
		t.Fatal(err)
	}
	found := func(file []byte) (State, []time.Time) {
		t.Helper()
		o, err := Open(file)
		if err != nil {
			return Failed, nil
		}
		v := verification{accept: Acceptance{Trusted: root}, opened: o}
		return v.inLog(leaf.Raw).State, v.times
	}
	for _, without := range []string{"nothing", "inclusionPromise", "inclusionProof"} {
		edited := editBundle(t, file, func(m map[string]any) { delete(m["tlogEntries"].([]any)[0].(map[string]any), without) })
		state, times := found(edited)
		if state != Passed || (len(times) == 0) != (without == "inclusionPromise") || len(times) > 0 && (times[0].Before(leaf.NotBefore) || times[0].After(leaf.NotAfter)) {
			t.Errorf("without %s: %s, %v", without, state, times)
		}
	}
	editBundle(t, file, func(m map[string]any) {
		leaves(m["tlogEntries"], func(path string, _ func(any)) {
			forged := editBundle(t, file, func(to map[string]any) { to["tlogEntries"] = m["tlogEntries"] })
			if state, _ := found(forged); state == Passed {
				t.Errorf("%s: changed, and passed", path)
			}
		})
	})
	if state, _ := found(bytes.Replace(file, []byte("MEQCIFWrPp3i58sn"), []byte("MEQCIFWrPp3i58sm"), 1)); state != Failed {
		t.Errorf("another signature: %s", state)
	}
}

// TestLogForged: what a log says counts only if it is the log that says it.
func TestLogForged(t *testing.T) {
	a := newAuthorities(t)
	statement, _ := recorded(t, testRun)
	log, foreign := runnertest.NewRekor(t, afterRun, false), runnertest.NewRekor(t, afterRun, false)
	ours := signed(t, keyless(a), statement)
	file := log.Log(ours, "dsse 0.0.1", nil)
	entryOf := func(m map[string]any) map[string]any { return m["tlogEntries"].([]any)[0].(map[string]any) }
	for name, tt := range map[string]struct {
		edit func(entry map[string]any)
		want State
	}{
		"as it is":      {func(map[string]any) {}, Passed},
		"no promise":    {func(e map[string]any) { delete(e, "inclusionPromise") }, Passed},
		"no proof":      {func(e map[string]any) { delete(e, "inclusionProof") }, Passed},
		"neither":       {func(e map[string]any) { delete(e, "inclusionProof"); delete(e, "inclusionPromise") }, Failed},
		"no checkpoint": {func(e map[string]any) { delete(e["inclusionProof"].(map[string]any), "checkpoint") }, Failed},
		"a shorter path": {func(e map[string]any) {
			p := e["inclusionProof"].(map[string]any)
			p["hashes"] = p["hashes"].([]any)[1:]
		}, Failed},
		"a longer path": {func(e map[string]any) {
			p := e["inclusionProof"].(map[string]any)
			p["hashes"] = append(p["hashes"].([]any), p["hashes"].([]any)[0])
		}, Failed},
		"an index below none":   {func(e map[string]any) { e["inclusionProof"].(map[string]any)["logIndex"] = "-1" }, Failed},
		"a size that overflows": {func(e map[string]any) { e["inclusionProof"].(map[string]any)["treeSize"] = "-1" }, Failed},
		"another root":          {func(e map[string]any) { e["inclusionProof"].(map[string]any)["rootHash"] = make([]byte, sha256Size) }, Failed},
		"another time": {func(e map[string]any) {
			e["integratedTime"] = strconv.FormatInt(afterRun().Add(time.Minute).Unix(), 10)
		}, Failed},
		"another place in the log": {func(e map[string]any) { e["logIndex"] = "7" }, Failed},
		"another promise": {func(e map[string]any) {
			e["inclusionPromise"] = map[string]any{"signedEntryTimestamp": []byte("signed by somebody else")}
		}, Failed},
		"a checkpoint of somebody else": {func(e map[string]any) {
			theirs := entryOf(materialOf(t, foreign.Log(ours, "dsse 0.0.1", nil)))["inclusionProof"].(map[string]any)
			e["inclusionProof"].(map[string]any)["checkpoint"] = theirs["checkpoint"]
		}, Failed},
		"numbers as numbers":     {func(e map[string]any) { e["logIndex"] = json.Number(e["logIndex"].(string)) }, Passed},
		"a number that is none":  {func(e map[string]any) { e["logIndex"] = "x" }, Failed},
		"another kind":           {func(e map[string]any) { e["kindVersion"].(map[string]any)["kind"] = "intoto" }, Failed},
		"a kind nobody has seen": {func(e map[string]any) { e["canonicalizedBody"] = []byte(`{"kind":"x","apiVersion":"0.0.1"}`) }, Failed},
		"a body that is none":    {func(e map[string]any) { e["canonicalizedBody"] = []byte(`[]`) }, Failed},
		"a witness beside it": {func(e map[string]any) {
			c := e["inclusionProof"].(map[string]any)["checkpoint"].(map[string]any)
			c["envelope"] = strings.Replace(c["envelope"].(string), "\n\n", "\n\n\u2014 witness.test AAAAAAAA\n", 1)
		}, Passed},
	} {
		forged := editBundle(t, file, func(m map[string]any) { tt.edit(entryOf(m)) })
		r := Verify(forged, Acceptance{Identity: a.ID.Subject, Issuer: a.ID.Issuer, Trusted: trustedWith(t, a, log), RequireLog: true})
		if r.State(AxisLog) != tt.want {
			t.Errorf("%s: %+v, want %s", name, r.Verdicts, tt.want)
		}
		if at := r.SignedAt; tt.want == Passed && (at == nil || !at.Equal(afterRun())) {
			t.Errorf("%s: signed at %v", name, at)
		}
	}
	many := editBundle(t, file, func(m map[string]any) {
		for range maxLogEntries {
			m["tlogEntries"] = append(m["tlogEntries"].([]any), entryOf(m))
		}
	})
	if r := Verify(many, Acceptance{Identity: a.ID.Subject, Issuer: a.ID.Issuer, Trusted: trustedWith(t, a, log)}); r.State(AxisLog) != Failed {
		t.Errorf("more entries than there may be: %+v", r.Verdicts)
	}
}

// TestLogKeys: a log whose key is of a kind that nobody here knows spoils nothing but its own entries.
func TestLogKeys(t *testing.T) {
	a := newAuthorities(t)
	log := runnertest.NewRekor(t, afterRun, false)
	root := a.TrustedRoot(log)
	unknown := bytes.Replace(root, []byte(`"tlogs":[`), []byte(`"tlogs":[{"logId":{"keyId":"AAAA"},"publicKey":{"rawBytes":"AAAA"}},`), 1)
	nameless := bytes.Replace(root, []byte(`"tlogs":[`), []byte(`"tlogs":[{},`), 1)
	statement, _ := recorded(t, testRun)
	file := log.Log(signed(t, keyless(a), statement), "dsse 0.0.1", nil)
	trusted, err := ParseTrustedRoot(unknown)
	if err != nil {
		t.Fatal(err)
	}
	accept := Acceptance{Identity: a.ID.Subject, Issuer: a.ID.Issuer, Trusted: trusted, RequireLog: true}
	if r := Verify(file, accept); !r.OK() {
		t.Errorf("%+v", r.Verdicts)
	}
	theirs := editBundle(t, file, func(m map[string]any) {
		m["tlogEntries"].([]any)[0].(map[string]any)["logId"].(map[string]any)["keyId"] = "AAAA"
	})
	if r := Verify(theirs, accept); r.State(AxisLog) != Failed {
		t.Errorf("in the name of the other log: %+v", r.Verdicts)
	}
	if _, err := ParseTrustedRoot(nameless); err == nil {
		t.Error("a log without an id is taken")
	}
}

func publicPEM(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: der})
}
