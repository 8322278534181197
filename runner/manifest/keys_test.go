package manifest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/secret"
)

func TestKeys(t *testing.T) {
	for _, algorithm := range []string{"ed25519", "ecdsa-p256", "ecdsa-p384"} {
		for _, phrase := range []string{"", "correct horse"} {
			key, err := NewKey(algorithm)
			if err != nil {
				t.Fatal(err)
			}
			private, public, err := EncodeKey(key, secret.New(phrase))
			if err != nil {
				t.Fatal(err)
			}
			if got := KeyIsEncrypted(private); got != (phrase != "") {
				t.Errorf("%s: encrypted is %t", algorithm, got)
			}
			again, err := ParsePrivateKey(private, secret.New(phrase))
			if err != nil {
				t.Fatalf("%s, passphrase %q: %v", algorithm, phrase, err)
			}
			other, err := ParsePublicKey(public)
			if err != nil {
				t.Fatal(err)
			}
			a, errA := KeyID(again.Public())
			b, errB := KeyID(other)
			if a != b || errA != nil || errB != nil {
				t.Errorf("%s: the keys are %s and %s, %v, %v", algorithm, a, b, errA, errB)
			}
			if phrase == "" {
				continue
			}
			for _, wrong := range []string{"", "wrong"} {
				if _, err := ParsePrivateKey(private, secret.New(wrong)); !errors.Is(err, ErrPassphrase) {
					t.Errorf("%s: with the passphrase %q: %v", algorithm, wrong, err)
				}
			}
		}
	}
	if _, err := NewKey("rsa"); err == nil {
		t.Error("an algorithm that nobody has was accepted")
	}
	for _, file := range []string{"", "x", "-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----\n"} {
		if _, err := ParsePrivateKey([]byte(file), secret.Value{}); err == nil {
			t.Errorf("%q was accepted", file)
		}
	}
}

// openssl reads our keys, and we read its.
func TestKeysOfOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl here to compare with")
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	theirs, ours := filepath.Join(dir, "theirs.pem"), filepath.Join(dir, "ours.pem")
	run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes-256-cbc", "-pass", "pass:horse", "-out", theirs)
	b, err := os.ReadFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePrivateKey(b, secret.New("horse")); err != nil {
		t.Errorf("a key of openssl's: %v", err)
	}
	key, err := NewKey("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	private, _, err := EncodeKey(key, secret.New("horse"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ours, private, 0o600); err != nil {
		t.Fatal(err)
	}
	run("pkey", "-in", ours, "-passin", "pass:horse", "-noout")
}
