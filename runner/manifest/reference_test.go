//go:build peers

package manifest

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// TestPeerReference: sigstore's own verifier and gh take what we sign, and refuse what we refuse. There is no log: GitHub's own instance,
// which private repositories have, has none.
func TestPeerReference(t *testing.T) {
	a, foreign := newAuthorities(t), newAuthorities(t)
	statement, files := recorded(t, testRun)
	ours := signed(t, keyless(a), statement)
	patch := files["changes.patch"].Data
	for name, tt := range map[string]struct {
		file    []byte
		trusted authorities
		subject string
		patch   []byte
		want    bool
	}{
		"ours":              {ours, a, a.ID.Subject, patch, true},
		"foreign authority": {ours, foreign, a.ID.Subject, patch, false},
		"wrong identity":    {ours, a, a.ID.Subject + "x", patch, false},
		"another artifact":  {ours, a, a.ID.Subject, []byte("x"), false},
		"no time":           {withoutTime(t, ours), a, a.ID.Subject, patch, false},
	} {
		asked := question{tt.file, tt.trusted.TrustedRoot(), tt.subject, a.ID.Issuer, tt.patch}
		for _, program := range []string{"reference", "gh"} {
			if out, err := asked.of(t, program); (err == nil) != tt.want {
				t.Errorf("%s, %s, want %t: %v\n%s", program, name, tt.want, err, out)
			}
		}
	}
}

// TestPeersLog: what a log of either version took in from us they take too; no real one of the first version can be started without a
// database, so that this is about our stand-in. Each change of what the log has signed is told.
func TestPeersLog(t *testing.T) {
	a := newAuthorities(t)
	statement, files := recorded(t, testRun)
	for _, second := range []bool{false, true} {
		log := runnertest.NewRekor(t, afterRun, second)
		s := keyless(a)
		s.Instance.Log = newRekor(t, log.Serve())
		ours := signed(t, s, statement)
		ask := func(name string, file []byte, want bool) {
			t.Helper()
			asked := question{file, a.TrustedRoot(log), a.ID.Subject, a.ID.Issuer, files["changes.patch"].Data}
			for _, program := range []string{"reference", "cosign"} {
				if out, err := asked.of(t, program); (err == nil) != want {
					t.Errorf("%s, second version %t, %s, want %t: %v\n%s", program, second, name, want, err, out)
				}
			}
		}
		ask("ours", ours, true)
		if !second {
			wantRekorEntry(t, ours)
		}
		ask("no entry", signed(t, keyless(a), statement), false)
		if second {
			continue // TestPeersKeyless has a real one
		}
		for name, edit := range map[string]func(entry map[string]any){
			"another time":  func(e map[string]any) { e["integratedTime"] = "1" },
			"another index": func(e map[string]any) { e["logIndex"] = "1" },
			"another promise": func(e map[string]any) {
				e["inclusionPromise"] = map[string][]byte{"signedEntryTimestamp": []byte("x")}
			},
			"another root": func(e map[string]any) { e["inclusionProof"].(map[string]any)["rootHash"] = make([]byte, 32) },
			"another body": func(e map[string]any) {
				body, _ := base64.StdEncoding.DecodeString(e["canonicalizedBody"].(string))
				e["canonicalizedBody"] = []byte(strings.Replace(string(body), `"value":"`, `"value":"0`, 1))
			},
		} {
			tampered := editBundle(t, ours, func(m map[string]any) { edit(m["tlogEntries"].([]any)[0].(map[string]any)) })
			ask(name, tampered, false)
			accept := Acceptance{Identity: a.ID.Subject, Issuer: a.ID.Issuer, Trusted: trustedWith(t, a, log), RequireLog: true}
			if r := Verify(tampered, accept); r.State(AxisLog) != Failed {
				t.Errorf("ours, %s: %+v", name, r.Verdicts)
			}
		}
	}
}

// wantRekorEntry: Rekor's own code takes the request that we make of a bundle, checks its signature, and makes the entry of it that the
// bundle has.
func wantRekorEntry(t *testing.T, file []byte) {
	t.Helper()
	o, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(o.Bundle.VerificationMaterial.Certificate.RawBytes)
	if err != nil {
		t.Fatal(err)
	}
	var has logEntry
	if err := json.Unmarshal(o.Bundle.VerificationMaterial.TlogEntries[0], &has); err != nil {
		t.Fatal(err)
	}
	forged := o.Envelope
	forged.Payload = base64.StdEncoding.EncodeToString([]byte("{}"))
	for name, envelope := range map[string]Envelope{"ours": o.Envelope, "another statement": forged} {
		request, err := request1(envelope, nil, nil, leaf)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "request.json")
		write(t, filepath.Dir(path), "request.json", request)
		out, err := exec.CommandContext(t.Context(), peer(t, "reference"), path).Output()
		if name == "ours" && (err != nil || !bytes.Equal(out, has.CanonicalizedBody)) {
			t.Errorf("Rekor makes of it (%v)\n%s\nand the bundle has\n%s", err, out, has.CanonicalizedBody)
		}
		if name != "ours" && err == nil {
			t.Errorf("%s: Rekor takes it", name)
		}
	}
}

// question is what a verifier is asked.
type question struct {
	file, trusted   []byte
	subject, issuer string
	patch           []byte
}

// of asks one of the programs.
func (q question) of(t *testing.T, program string) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "manifest.json", q.file)
	write(t, dir, "trusted_root.json", append(q.trusted, '\n')) // gh reads lines
	write(t, dir, "changes.patch", q.patch)
	args := map[string][]string{
		"reference": {"manifest.json", "trusted_root.json", q.subject, q.issuer, digest(q.patch)},
		"cosign": {
			"verify-blob-attestation", "--certificate-identity", q.subject, "--certificate-oidc-issuer", q.issuer, "--trusted-root", "trusted_root.json",
			"--use-signed-timestamps", "--bundle", "manifest.json", "--type", PredicateType, "changes.patch",
		},
		"gh": {
			"attestation", "verify", "changes.patch", "--bundle", "manifest.json", "--custom-trusted-root", "trusted_root.json", "--repo", "acme/shop",
			"--cert-identity", q.subject, "--cert-oidc-issuer", q.issuer, "--predicate-type", PredicateType,
		},
	}[program]
	if program == "cosign" && !bytes.Contains(q.trusted, []byte(`"ctlogs"`)) {
		args = append(args, "--insecure-ignore-sct") // it asks for one whatever is trusted
	}
	c := exec.CommandContext(t.Context(), peer(t, program), args...)
	c.Dir, c.Env = dir, []string{"HOME=" + dir}
	return c.CombinedOutput()
}
