//go:build peers

package manifest

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPeerReference: sigstore's own verifier takes what we sign, and refuses what we refuse.
func TestPeerReference(t *testing.T) {
	a, foreign := newAuthorities(t), newAuthorities(t)
	statement, files := recorded(t, testRun)
	ours := signed(t, keyless(a), statement)
	patch := digest(files["changes.patch"].Data)
	for name, tt := range map[string]struct {
		file    []byte
		trusted authorities
		subject string
		patch   string
		want    bool
	}{
		"ours":              {ours, a, a.ID.Subject, patch, true},
		"foreign authority": {ours, foreign, a.ID.Subject, patch, false},
		"wrong identity":    {ours, a, a.ID.Subject + "x", patch, false},
		"another artifact":  {ours, a, a.ID.Subject, strings.Repeat("0", 64), false},
	} {
		if err := referenceVerify(t, tt.file, tt.trusted.TrustedRoot(), tt.subject, a.ID.Issuer, tt.patch); (err == nil) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// referenceVerify runs the program of .github/verifiers/reference.
func referenceVerify(t *testing.T, file, trusted []byte, subject, issuer, artifact string) error {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "manifest.json", file)
	write(t, dir, "trusted_root.json", trusted)
	return exec.CommandContext(t.Context(), peer(t, "reference"),
		filepath.Join(dir, "manifest.json"), filepath.Join(dir, "trusted_root.json"), subject, issuer, artifact).Run()
}
