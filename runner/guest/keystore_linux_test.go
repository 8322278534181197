package guest

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/runner/link"
)

// TestKeyStore reads the store back, and checks the sum as Java does.
func TestKeyStore(t *testing.T) {
	want := [][]byte{newCertificate(t, "one"), newCertificate(t, "two")}
	store := keyStore(want)
	got, err := readKeyStore(store)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("other certificates come back (-got +want):\n%s", diff)
	}
	body := store[:len(store)-20]
	if sum := storeSum(body); !bytes.Equal(sum[:], store[len(body):]) {
		t.Error("the sum is not the last thing in the store")
	}
}

// TestKeyStoreKeytool has Java read it.
func TestKeyStoreKeytool(t *testing.T) {
	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Skip("there is no keytool: Java's own reading of the store is not tried")
	}
	name := filepath.Join(t.TempDir(), link.StoreFile)
	writeFile(t, name, keyStore([][]byte{newCertificate(t, "one"), newCertificate(t, "two")}))
	out, err := exec.Command(keytool, "-list", "-v", "-keystore", name, "-storepass", link.StorePassword).CombinedOutput()
	if err != nil {
		t.Fatalf("keytool: %v\n%s", err, out)
	}
	for _, want := range []string{"Keystore type: JKS", "contains 2 entries", "trustedCertEntry", "Owner: CN=one", "Owner: CN=two"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("keytool does not say %q:\n%s", want, out)
		}
	}
	if out, err := exec.Command(keytool, "-list", "-keystore", name, "-storepass", "another").CombinedOutput(); err == nil {
		t.Errorf("keytool takes any password, so the sum says nothing:\n%s", out)
	}
}

// TestKeyStoreOfKeytool: what Java wrote, with a private key in it, can be read.
func TestKeyStoreOfKeytool(t *testing.T) {
	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Skip("there is no keytool: a store of Java's own is not read")
	}
	dir := t.TempDir()
	store, cert := filepath.Join(dir, "store"), filepath.Join(dir, "cert")
	der := newCertificate(t, "company")
	writeFile(t, cert, der)
	for _, args := range [][]string{
		{"-genkeypair", "-alias", "key", "-keyalg", "EC", "-dname", "CN=key", "-keypass", "changeit"},
		{"-importcert", "-alias", "company", "-file", cert, "-noprompt"},
	} {
		args = append(args, "-keystore", store, "-storepass", "changeit", "-storetype", "JKS")
		if out, err := exec.Command(keytool, args...).CombinedOutput(); err != nil {
			t.Fatalf("keytool %q: %v\n%s", args, err, out)
		}
	}
	content, err := readInside(store, maxBundle)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseCertificates(content); err != nil || !cmp.Equal(got, [][]byte{der}) {
		t.Errorf("read %d certificates, %v", len(got), err)
	}
}

// FuzzReadKeyStore: whatever is in a file, what comes out are certificates, and they are in the file.
func FuzzReadKeyStore(f *testing.F) {
	store := keyStore([][]byte{newCertificate(f, "one"), {0x30, 0x01, 0x00}})
	f.Add(store)
	f.Add(store[:20])
	f.Add([]byte{0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, content []byte) {
		certs, err := readKeyStore(content)
		if (err == nil) != (len(certs) > 0) {
			t.Fatalf("%d certificates and %v", len(certs), err)
		}
		for _, c := range certs {
			if len(c) < 2 || c[0] != 0x30 || !bytes.Contains(content, c) {
				t.Fatalf("%x is no certificate of the store", c)
			}
		}
	})
}

func TestReadKeyStoreRefuses(t *testing.T) {
	good := keyStore([][]byte{newCertificate(t, "one")})
	for name, content := range map[string][]byte{
		"an empty store":    keyStore(nil),
		"a cut store":       good[:50],
		"another version":   append([]byte{0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 3}, good[8:]...),
		"no certificate":    keyStore([][]byte{[]byte("text")}),
		"an unknown entry":  bytes.Replace(good, []byte{0, 0, 0, trustedEntry, 0, 9}, []byte{0, 0, 0, 9, 0, 9}, 1),
		"nothing but magic": good[:4],
	} {
		if certs, err := readKeyStore(content); err == nil {
			t.Errorf("%s: %d certificates", name, len(certs))
		}
	}
	if _, err := readKeyStore(good[:50]); !errors.Is(err, errKeyStore) {
		t.Errorf("a cut store: %v", err)
	}
}
