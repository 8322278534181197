package manifest

import (
	"encoding/hex"
	"testing"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// TestReferenceVerifier: sigstore's own verifier takes what we sign, and refuses what we refuse.
func TestReferenceVerifier(t *testing.T) {
	a, foreign := newAuthorities(t), newAuthorities(t)
	statement, files := recorded(t, testRun)
	ours := signed(t, keyless(a), statement)
	patch, err := hex.DecodeString(digest(files["changes.patch"].Data))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		file    []byte
		trusted *authorities
		subject string
		patch   []byte
		want    bool
	}{
		"ours":              {ours, a, a.id.subject, patch, true},
		"foreign authority": {ours, foreign, a.id.subject, patch, false},
		"wrong identity":    {ours, a, a.id.subject + "x", patch, false},
		"another artifact":  {ours, a, a.id.subject, make([]byte, 32), false},
	} {
		if err := referenceVerify(tt.file, tt.trusted.trustedRoot(), tt.subject, a.id.issuer, tt.patch); (err == nil) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func referenceVerify(file, trusted []byte, subject, issuer string, artifact []byte) error {
	var b bundle.Bundle
	if err := b.UnmarshalJSON(file); err != nil {
		return err
	}
	material, err := root.NewTrustedRootFromJSON(trusted)
	if err != nil {
		return err
	}
	v, err := verify.NewVerifier(material, verify.WithSignedTimestamps(1))
	if err != nil {
		return err
	}
	id, err := verify.NewShortCertificateIdentity(issuer, "", subject, "")
	if err != nil {
		return err
	}
	_, err = v.Verify(&b, verify.NewPolicy(verify.WithArtifactDigest("sha256", artifact), verify.WithCertificateIdentity(id)))
	return err
}
