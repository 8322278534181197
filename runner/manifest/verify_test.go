package manifest

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/secret"
)

func keyless(a authorities) *KeylessSigner {
	return &KeylessSigner{
		Instance: Instance{Fulcio: a.URL, Time: a.authority()},
		Token: func(_ context.Context, audience string) (secret.Value, error) {
			if audience != Audience {
				return secret.Value{}, fmt.Errorf("audience %q", audience)
			}
			return secret.New(testToken("repo:acme/shop:ref:refs/heads/main")), nil
		},
	}
}

// recorded is a run with its files, whose manifest is about them.
func recorded(t testing.TB, run string) (statement []byte, files fstest.MapFS) {
	t.Helper()
	files = fstest.MapFS{"changes.patch": {Data: []byte("patch of " + run)}, "changes.json": {Data: []byte("[]")}, "stdout.log": {Data: []byte("out")}}
	log := &memory{}
	chain := event.NewChain(log, run)
	f := event.NewFold(run)
	for i, e := range []event.Event{
		event.RunStarted{Argv: []string{"true"}, Project: "/p", Policy: event.PolicyRef{Digest: "sha256:dd"}, Invocation: event.Invocation{Trigger: event.TriggerLocal}},
		event.OutputKept{Stream: "stdout", SHA256: digest(files["stdout.log"].Data), Bytes: 3},
		event.ChangesExtracted{Added: 1, Digest: digest(files["changes.json"].Data), Patch: digest(files["changes.patch"].Data), Tree: testTree},
		event.RunFinished{Outcome: event.Success, Duration: time.Second},
	} {
		env := event.Envelope{Seq: uint64(i + 1), Time: testTime().Add(time.Duration(i) * time.Second), Kind: e.Kind(), Run: run, Data: e}
		if err := errors.Join(chain.Handle(env), f.Handle(env)); err != nil {
			t.Fatal(err)
		}
	}
	head := chain.Head()
	if err := chain.Close(); err != nil {
		t.Fatal(err)
	}
	files["events.jsonl"] = &fstest.MapFile{Data: log.b}
	s := f.Summary()
	s.Log = &event.Log{Head: head, State: event.LogComplete}
	statement, err := Build(Input{Summary: s, Files: files})
	if err != nil {
		t.Fatal(err)
	}
	return statement, files
}

// testTree is the id of an empty tree.
const testTree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

// memory is a log's file.
type memory struct{ b []byte }

func (m *memory) Write(p []byte) (int, error) { m.b = append(m.b, p...); return len(p), nil }
func (m *memory) Sync() error                 { return nil }
func (m *memory) Close() error                { return nil }
func (m *memory) Truncate(n int64) error      { m.b = m.b[:n]; return nil }

func signed(t testing.TB, s Signer, statement []byte) []byte {
	t.Helper()
	out, err := s.Sign(t.Context(), statement)
	if err != nil {
		t.Fatal(err)
	}
	return out.File
}

func newKeySigner(t testing.TB, algorithm string, a *TimestampAuthority) (*KeySigner, crypto.PublicKey) {
	t.Helper()
	key, err := NewKey(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewKeySigner(key, a)
	if err != nil {
		t.Fatal(err)
	}
	return s, key.Public()
}

// states are the answers in short: a letter for each axis.
func states(r Report) string {
	var b strings.Builder
	for _, a := range []Axis{AxisSyntax, AxisSignature, AxisIdentity, AxisTime, AxisBinding, AxisPolicy} {
		b.WriteString(map[State]string{Passed: "+", Failed: "!", Skipped: "."}[r.State(a)])
	}
	return b.String()
}

// verifyCase is a file with what a verifier accepts, and what comes of it.
type verifyCase struct {
	file   []byte
	accept Acceptance
	want   string // syntax, signature, identity, time, binding, policy
}

func checkVerify(t *testing.T, cases map[string]verifyCase) {
	t.Helper()
	for name, tt := range cases {
		r := Verify(tt.file, tt.accept)
		if got := states(r); got != tt.want {
			t.Errorf("%s: %s, want %s\n%+v", name, got, tt.want, r.Verdicts)
		}
		if want := !strings.Contains(tt.want, "!"); r.OK() != want {
			t.Errorf("%s: OK is %t, want %t", name, r.OK(), want)
		}
	}
}

// TestVerify: what is wrong with a file that a key signed shows on its own axis. The first line is the positive control of the others, as it
// is in TestVerifyCertificate.
func TestVerify(t *testing.T) {
	a, foreign := newAuthorities(t), newAuthorities(t)
	statement, files := recorded(t, testRun)
	other, _ := recorded(t, "20261123-152240-zzzzzz")
	signer, key := newKeySigner(t, "ed25519", nil)
	timed, timedKey := newKeySigner(t, "ecdsa-p256", a.authority())
	_, wrongKey := newKeySigner(t, "ed25519", nil)
	byKey := signed(t, signer, statement)
	swapped := maps.Clone(files)
	swapped["changes.patch"] = &fstest.MapFile{Data: []byte("another patch")}
	lines := strings.SplitAfter(string(files["events.jsonl"].Data), "\n")
	truncated, reordered := maps.Clone(files), maps.Clone(files)
	truncated["events.jsonl"] = &fstest.MapFile{Data: []byte(strings.Join(lines[:2], ""))}
	reordered["events.jsonl"] = &fstest.MapFile{Data: []byte(lines[1] + lines[0] + strings.Join(lines[2:], ""))}
	checkVerify(t, map[string]verifyCase{
		"key":               {byKey, Acceptance{Key: key, Files: files, Policies: []string{"sha256:dd"}}, "+++.++"},
		"key with a time":   {signed(t, timed, statement), Acceptance{Key: timedKey, Trusted: a.trusted(t)}, "++++.."},
		"key, foreign time": {signed(t, timed, statement), Acceptance{Key: timedKey, Trusted: foreign.trusted(t)}, "+++!.."},
		"wrong key":         {byKey, Acceptance{Key: wrongKey, Files: files}, "+!..+."},
		"no key":            {byKey, Acceptance{Files: files}, "+!..+."},
		"unsigned":          {signed(t, Unsigned{}, statement), Acceptance{Key: key, Files: files}, "+!..+."},
		"another run":       {signed(t, signer, other), Acceptance{Key: key, Files: files}, "+++.!."},
		"swapped patch":     {byKey, Acceptance{Key: key, Files: swapped}, "+++.!."},
		"truncated events":  {byKey, Acceptance{Key: key, Files: truncated}, "+++.!."},
		"reordered events":  {byKey, Acceptance{Key: key, Files: reordered}, "+++.!."},
		"artifact":          {byKey, Acceptance{Key: key, Artifacts: []Artifact{{"p", digest(files["changes.patch"].Data)}}}, "+++.+."},
		"foreign artifact":  {byKey, Acceptance{Key: key, Artifacts: []Artifact{{"p", digest([]byte("x"))}}}, "+++.!."},
		"tree":              {byKey, Acceptance{Key: key, Trees: []string{testTree}}, "+++.+."},
		"another tree":      {byKey, Acceptance{Key: key, Trees: []string{digest([]byte("x"))[:40]}}, "+++.!."},
		"a file for a tree": {byKey, Acceptance{Key: key, Trees: []string{digest(files["changes.patch"].Data)}}, "+++.!."},
		"another policy":    {byKey, Acceptance{Key: key, Policies: []string{"sha256:ee"}}, "+++..!"},
	})
}

// TestVerifyCertificate is the same for files that a job signed.
func TestVerifyCertificate(t *testing.T) {
	a, foreign := newAuthorities(t), newAuthorities(t)
	statement, files := recorded(t, testRun)
	_, key := newKeySigner(t, "ed25519", nil)
	byCert := signed(t, keyless(a), statement)
	late := authorities{a.At(func() time.Time { return testTime().Add(time.Hour) })}
	expired := signed(t, &KeylessSigner{Instance: Instance{Fulcio: a.URL, Time: late.authority()}, Token: keyless(a).Token}, statement)
	id := a.ID
	cert := func(edit func(*Acceptance)) Acceptance {
		accept := Acceptance{Identity: id.Subject, Issuer: id.Issuer, Repository: id.RepositoryID, Trusted: a.trusted(t), Files: files, Policies: []string{"sha256:dd"}}
		edit(&accept)
		return accept
	}
	nothing := func(*Acceptance) {}
	checkVerify(t, map[string]verifyCase{
		"certificate":             {byCert, cert(nothing), "++++++"},
		"expired certificate":     {expired, cert(nothing), "+++!++"},
		"foreign authority":       {signed(t, keyless(foreign), statement), cert(nothing), "++!!++"},
		"wrong repository":        {byCert, cert(func(c *Acceptance) { c.Repository = "8" }), "++!+++"},
		"owner":                   {byCert, cert(func(c *Acceptance) { c.Identity, c.Repository, c.Owner = "", "", "8" }), "++++++"},
		"wrong owner":             {byCert, cert(func(c *Acceptance) { c.Owner = "9" }), "++!+++"},
		"of the job that it says": {signed(t, keyless(a), ofJob(t, statement, "7", "8", "1")), cert(func(c *Acceptance) { c.Files = nil }), "++++.+"},
		"of another repository":   {signed(t, keyless(a), ofJob(t, statement, "77", "8", "1")), cert(func(c *Acceptance) { c.Files = nil }), "++!+.+"},
		"of another owner":        {signed(t, keyless(a), ofJob(t, statement, "7", "88", "1")), cert(func(c *Acceptance) { c.Files = nil }), "++!+.+"},
		"of another CI run":       {signed(t, keyless(a), ofJob(t, statement, "7", "8", "11")), cert(func(c *Acceptance) { c.Files = nil }), "++!+.+"},
		"wrong issuer":            {byCert, cert(func(c *Acceptance) { c.Issuer += ".evil.example" }), "++!+++"},
		"wrong identity":          {byCert, cert(func(c *Acceptance) { c.Identity += "x" }), "++!+++"},
		"nobody is accepted":      {byCert, cert(func(c *Acceptance) { c.Identity, c.Repository = "", "" }), "++!+++"},
		"nothing is trusted":      {byCert, cert(func(c *Acceptance) { c.Trusted = nil }), "++!!++"},
		"certificate, key wanted": {byCert, cert(func(c *Acceptance) { c.Key = key }), "+!..++"},
		"the zero value":          {byCert, Acceptance{}, "++!!.."},
	})
}

// ofJob is a statement that names the CI job it is from.
func ofJob(t *testing.T, statement []byte, repository, owner, run string) []byte {
	t.Helper()
	s, err := Decode(statement)
	if err != nil {
		t.Fatal(err)
	}
	i := &s.Predicate.Invocation
	i.RepositoryID, i.RepositoryOwnerID, i.RunURL = repository, owner, "https://github.com/acme/shop/actions/runs/"+run
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVerifyTampered changes every single value of a signed statement: none of them passes.
func TestVerifyTampered(t *testing.T) {
	statement, err := Build(fullInput(t))
	if err != nil {
		t.Fatal(err)
	}
	signer, key := newKeySigner(t, "ed25519", nil)
	file := signed(t, signer, statement)
	if r := Verify(file, Acceptance{Key: key}); !r.OK() {
		t.Fatalf("the positive control failed: %+v", r.Verdicts)
	}
	var o Opened
	if o, err = Open(file); err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(statement, &tree); err != nil {
		t.Fatal(err)
	}
	n, believed := 0, 0
	leaves(tree, func(path string, set func(any)) {
		n++
		payload, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		b := *o.Bundle
		b.DSSEEnvelope.Payload = base64.StdEncoding.EncodeToString(payload)
		forged, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(payload); err == nil {
			believed++ // by who does not look at the signature
		}
		r := Verify(forged, Acceptance{Key: key})
		if r.OK() || r.State(AxisSyntax) == Passed && r.State(AxisSignature) != Failed {
			t.Errorf("%s: changed, and %s", path, states(r))
		}
	})
	if n < 150 {
		t.Errorf("%d values were changed", n)
	}
	if believed < n/2 {
		t.Errorf("%d of %d changed statements are one without the signature: the test proves nothing", believed, n)
	}
}

// leaves changes one value after the other, and puts each back.
func leaves(v any, try func(path string, set func(any))) {
	var walk func(path string, v any, set func(any))
	walk = func(path string, v any, set func(any)) {
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				walk(path+"."+k, v[k], func(x any) { v[k] = x })
			}
		case []any:
			for i := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), v[i], func(x any) { v[i] = x })
			}
		default:
			set(other(v))
			try(path, set)
			set(v)
		}
	}
	walk("", v, func(any) {})
}

func other(v any) any {
	switch v := v.(type) {
	case string:
		return v + "x"
	case float64:
		return v + 1
	case bool:
		return !v
	}
	return "x"
}

// Two spellings of one file are two files to somebody: only one is taken.
func TestOpenStrict(t *testing.T) {
	statement, _ := recorded(t, testRun)
	signer, key := newKeySigner(t, "ed25519", nil)
	good := string(signed(t, signer, statement))
	for name, file := range map[string]string{
		"a repeated key":         strings.Replace(good, `{"mediaType"`, `{"mediaType":"x","mediaType"`, 1),
		"a key in another case":  strings.Replace(good, `"payload"`, `"Payload"`, 1),
		"an unknown key":         strings.Replace(good, `"payload"`, `"more":1,"payload"`, 1),
		"data after it":          good + "{}",
		"another type":           strings.Replace(good, PayloadType, "text/plain", 1),
		"two signatures":         strings.Replace(good, `"signatures":[`, `"signatures":[{"sig":"AA=="},`, 1),
		"line breaks in base64":  strings.Replace(good, `"payload":"`, `"payload":"\n`, 1),
		"nothing":                "",
		"deep":                   strings.Repeat(`{"payload":`, 100),
		"an older bundle":        strings.Replace(good, "v0.3+json", "v0.2+json", 1),
		"larger than a manifest": good + strings.Repeat(" ", MaxFile),
	} {
		if r := Verify([]byte(file), Acceptance{Key: key}); r.OK() {
			t.Errorf("%s: accepted", name)
		}
	}
	if r := Verify([]byte(good), Acceptance{Key: key}); !r.OK() {
		t.Errorf("the positive control failed: %+v", r.Verdicts)
	}
}

func FuzzVerify(f *testing.F) {
	statement, _ := recorded(f, testRun)
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) // each worker needs the same
	signer, err := NewKeySigner(private, nil)
	if err != nil {
		f.Fatal(err)
	}
	a := newAuthorities(f)
	f.Add(signed(f, signer, statement))
	f.Add(signed(f, Unsigned{}, statement))
	f.Add(signed(f, keyless(a), statement))
	log := runnertest.NewRekor(f, afterRun, false)
	second := runnertest.NewRekor(f, afterRun, true)
	f.Add(log.Log(signed(f, keyless(a), statement), "dsse 0.0.1", nil))
	f.Add(second.Log(signed(f, keyless(a), statement), "hashedrekord 0.0.2", nil))
	a.Close() // what goes on in it would look like new paths of ours
	accept := []Acceptance{
		{Key: private.Public(), Trusted: a.trusted(f)},
		{Identity: a.ID.Subject, Issuer: a.ID.Issuer, Trusted: trustedWith(f, a, log, second)},
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, read := range []func([]byte) (logEntry, error){entry1, entry2} {
			if e, err := read(file); err == nil && e.InclusionProof == nil {
				t.Errorf("an answer without a proof is taken for an entry: %q", file)
			}
		}
		for _, accept := range accept {
			if !Verify(file, accept).OK() {
				continue
			}
			// Whatever the file looks like around it, what is accepted is what was signed.
			if o, err := Open(file); err != nil || string(o.Payload) != string(statement) {
				t.Errorf("a file was accepted whose statement nobody signed: %q", file)
			}
		}
	})
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
