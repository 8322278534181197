package manifest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// publicGood is a certificate that sigstore's public Fulcio issued to a job in 2023, and the trusted root of that instance, from the
// test data of sigstore-go (Apache-2.0). So is the bundle beside them, in the form of version 0.3.
func publicGood(t testing.TB) (leaf *x509.Certificate, root []byte) {
	t.Helper()
	dir := filepath.Join("testdata", "public-good")
	file, err := os.ReadFile(filepath.Join(dir, "job.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(file)
	if leaf, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	if root, err = os.ReadFile(filepath.Join(dir, "trusted_root.json")); err != nil {
		t.Fatal(err)
	}
	return leaf, root
}

// TestSCT: the real log vouches for the real certificate, and for no other; another log, or one of another time, does not.
func TestSCT(t *testing.T) {
	leaf, file := publicGood(t)
	at := leaf.NotBefore.Add(time.Minute)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		edit func(l *ctLog, leaf *x509.Certificate)
		want bool
	}{
		"as it is":                 {func(*ctLog, *x509.Certificate) {}, true},
		"another key, the same id": {func(l *ctLog, _ *x509.Certificate) { l.key = &other.PublicKey }, false},
		"another log":              {func(l *ctLog, _ *x509.Certificate) { l.id = sha256.Sum256(nil) }, false},
		"a log that came later":    {func(l *ctLog, _ *x509.Certificate) { l.from = at.Add(time.Hour) }, false},
		"a log that had ended":     {func(l *ctLog, _ *x509.Certificate) { l.until = at.Add(-time.Hour) }, false},
		"another certificate": {func(_ *ctLog, leaf *x509.Certificate) {
			leaf.RawTBSCertificate = bytes.Replace(leaf.RawTBSCertificate, []byte("release"), []byte("RELEASE"), 1)
		}, false},
		"without an SCT": {func(_ *ctLog, leaf *x509.Certificate) {
			leaf.RawTBSCertificate = bytes.Replace(leaf.RawTBSCertificate, []byte{0xd6, 0x79, 2, 4, 2}, []byte{0xd6, 0x79, 2, 4, 9}, 1)
		}, false},
	} {
		root, err := ParseTrustedRoot(file)
		if err != nil {
			t.Fatal(err)
		}
		changed := *leaf
		changed.RawTBSCertificate = bytes.Clone(leaf.RawTBSCertificate)
		for i := range root.certificates {
			root.certificates[i].logs = append([]ctLog(nil), root.certificates[i].logs...)
			for j := range root.certificates[i].logs {
				tt.edit(&root.certificates[i].logs[j], &changed)
			}
		}
		chain := root.certificates[len(root.certificates)-1].chain
		if got := logged(&changed, chain[0], root.certificates[0].logs); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
		if got := root.issued(leaf, at); got != (tt.want || name == "another certificate" || name == "without an SCT") {
			t.Errorf("%s: issued is %t", name, got)
		}
	}
}

// TestTrustedRoots: several in one file, as gh writes them, are all trusted, and the logs of one are not asked for by the other.
func TestTrustedRoots(t *testing.T) {
	a := newAuthorities(t)
	leaf, public := publicGood(t)
	root, err := ParseTrustedRoot(append(append(bytes.Clone(public), '\n'), a.TrustedRoot()...))
	if err != nil {
		t.Fatal(err)
	}
	if !root.issued(leaf, leaf.NotBefore) {
		t.Error("the first is not trusted")
	}
	statement, files := recorded(t, testRun)
	accept := Acceptance{Repository: a.ID.RepositoryID, Trusted: root, Files: files}
	if r := Verify(signed(t, keyless(a), statement), accept); !r.OK() {
		t.Errorf("the second: %+v", r.Verdicts)
	}
	// With logs, a certificate without an SCT is not enough.
	for i := range root.certificates {
		root.certificates[i].logs = root.certificates[0].logs
	}
	if r := Verify(signed(t, keyless(a), statement), accept); r.State(AxisIdentity) != Failed {
		t.Errorf("without an SCT: %+v", r.Verdicts)
	}
	for name, file := range map[string]string{"nothing": "", "no authority": "{}", "half": `{"ctlogs":[`, "a log without a key": `{"ctlogs":[{}]}`} {
		if _, err := ParseTrustedRoot([]byte(file)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// FuzzSCT: no other certificate than the one that was logged counts as logged.
func FuzzSCT(f *testing.F) {
	leaf, file := publicGood(f)
	root, err := ParseTrustedRoot(file)
	if err != nil {
		f.Fatal(err)
	}
	a := root.certificates[len(root.certificates)-1]
	f.Add(leaf.RawTBSCertificate)
	f.Fuzz(func(t *testing.T, tbs []byte) {
		changed := x509.Certificate{RawTBSCertificate: tbs}
		if logged(&changed, a.chain[0], a.logs) && !bytes.Equal(tbs, leaf.RawTBSCertificate) {
			// The list itself is not signed; what it leaves has to be the same.
			rest, _, err := withoutSCTs(tbs)
			want, _, wantErr := withoutSCTs(leaf.RawTBSCertificate)
			if err != nil || wantErr != nil || !bytes.Equal(rest, want) {
				t.Errorf("logged: %x", tbs)
			}
		}
	})
}
