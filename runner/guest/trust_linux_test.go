package guest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

// newCertificate is a certificate authority of this name, in DER.
func newCertificate(tb testing.TB, name string) []byte {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func writeFile(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// names are the common names of certificates, sorted. Whatever isn't one fails the test.
func names(t *testing.T, certs [][]byte) []string {
	t.Helper()
	var all []string
	for _, der := range certs {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c.Subject.CommonName)
	}
	slices.Sort(all)
	return all
}

func TestParseCertificates(t *testing.T) {
	one, two := newCertificate(t, "one"), newCertificate(t, "two")
	private := encodePEM("PRIVATE KEY", []byte{0x30, 1, 0})
	content := slices.Concat(
		[]byte("# a comment\n"), encodePEM("CERTIFICATE", one), private,
		encodePEM("TRUSTED CERTIFICATE", append(slices.Clone(two), 0x30, 3, 1, 1, 1)), // OpenSSL's notes
		encodePEM("CERTIFICATE", []byte("text")), encodePEM("CERTIFICATE", []byte{0x30, 0x85, 1}), encodePEM("CERTIFICATE", nil),
	)
	certs, err := parseCertificates(content)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, certs); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("found %q", got)
	}
	for _, none := range [][]byte{nil, []byte("text"), private, encodePEM("CERTIFICATE", []byte("text"))} {
		if certs, err := parseCertificates(none); err == nil {
			t.Errorf("%q has %d certificates", none, len(certs))
		}
	}
}

// TestFiles makes all files as the guest does, and looks at what is in them.
func TestFiles(t *testing.T) {
	dir, image := t.TempDir(), t.TempDir()
	in := func(name string) string { return filepath.Join(image, name) }
	company := newCertificate(t, "company")
	writeFile(t, in("usual.pem"), encodePEM("CERTIFICATE", newCertificate(t, "image")))
	writeFile(t, in("second.pem"), encodePEM("CERTIFICATE", newCertificate(t, "second")))
	writeFile(t, in("company.pem"), slices.Concat(encodePEM("CERTIFICATE", company), encodePEM("CERTIFICATE", company)))
	writeFile(t, in("node.pem"), encodePEM("CERTIFICATE", newCertificate(t, "node")))
	writeFile(t, in("java.jks"), keyStore([][]byte{newCertificate(t, "java")}))
	writeFile(t, in("cacerts"), keyStore([][]byte{newCertificate(t, "cacerts"), company}))
	writeFile(t, in("wgetrc"), []byte("passive_ftp = on\n"))
	writeFile(t, in("empty"), nil)
	start := &link.Start{
		Files: []link.File{
			{Name: "policy.json", Content: []byte("{}\n")},
			{Name: "wgetrc", Content: []byte("more\n"), After: in("wgetrc")},
			{Name: "apt.conf", Content: []byte("alone\n"), After: in("absent")},
			{Name: "kit.json", Content: []byte("{}\n"), Copy: in("home/.kit/settings.json")},
			{Name: "taken.json", Content: []byte("{}\n"), Copy: in("wgetrc")},
		},
		Trust: &link.Trust{
			CA:      encodePEM("CERTIFICATE", newCertificate(t, "run")),
			Bundles: []string{in("company.pem"), in("absent.pem"), in("empty"), "relative.pem"},
			Extra:   []string{in("node.pem")}, Stores: []string{in("java.jks")},
		},
	}
	made := makeFiles(t, dir, start, trustPlaces{[]string{in("absent.pem"), in("usual.pem"), in("second.pem")}, []string{in("cacerts"), in("absent")}})
	for name, want := range map[string]string{"policy.json": "{}\n", "wgetrc": "passive_ftp = on\nmore\n", "apt.conf": "alone\n"} {
		if got := string(readMade(t, dir, name)); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{"home/.kit/settings.json": "{}\n", "wgetrc": "passive_ftp = on\n"} {
		if got, err := os.ReadFile(in(name)); string(got) != want {
			t.Errorf("%s has %q, want %q: %v", name, got, want, err)
		}
	}
	for name, want := range map[string][]string{
		link.CAFile:     {"node", "run"},
		link.BundleFile: {"company", "image", "node", "run"},
		link.StoreFile:  {"cacerts", "company", "image", "java", "node", "run"},
	} {
		certs, err := parseCertificates(readMade(t, dir, name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := names(t, certs); !slices.Equal(got, want) {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	want := &link.Trusted{
		Certificates: 4,
		Sources:      []string{in("node.pem"), in("usual.pem"), in("company.pem"), in("java.jks"), in("cacerts")},
		Missing: []string{
			"open " + in("absent.pem") + ": no such file or directory", in("empty") + ": no certificate in it",
			"relative.pem: not an absolute path",
		},
	}
	if diff := cmp.Diff(made, want); diff != "" {
		t.Errorf("the report is another (-got +want):\n%s", diff)
	}
}

// TestFilesOfScratch: an image without anything trusts the run's certificate.
func TestFilesOfScratch(t *testing.T) {
	dir := t.TempDir()
	start := &link.Start{Trust: &link.Trust{CA: encodePEM("CERTIFICATE", newCertificate(t, "run"))}}
	made := makeFiles(t, dir, start, trustPlaces{})
	for _, name := range []string{link.CAFile, link.BundleFile, link.StoreFile} {
		certs, err := parseCertificates(readMade(t, dir, name))
		if got := names(t, certs); err != nil || !slices.Equal(got, []string{"run"}) {
			t.Errorf("%s has %q (%v)", name, got, err)
		}
	}
	if made.Certificates != 1 || len(made.Missing) != 1 {
		t.Errorf("the report is %+v", made)
	}
}

// TestFilesRefused: without the run's certificate nothing works, so that it is no matter of reporting.
func TestFilesRefused(t *testing.T) {
	start := &link.Start{Trust: &link.Trust{CA: []byte("text")}}
	files, err := createFiles(t.TempDir(), start)
	if err != nil {
		t.Fatal(err)
	}
	if made, err := files.fill(start, trustPlaces{}); err == nil {
		t.Errorf("no certificate is accepted: %+v", made)
	}
}

// TestFilesAfterNothing: settings that can't be read are reported, and ours are in force all the same.
func TestFilesAfterNothing(t *testing.T) {
	dir := t.TempDir()
	start := &link.Start{
		Files: []link.File{{Name: "wgetrc", Content: []byte("ours\n"), After: "/"}},
		Trust: &link.Trust{CA: encodePEM("CERTIFICATE", newCertificate(t, "run"))},
	}
	made := makeFiles(t, dir, start, trustPlaces{})
	if got := string(readMade(t, dir, "wgetrc")); got != "ours\n" || !slices.Contains(made.Missing, "/ is no ordinary file") {
		t.Errorf("the file has %q, the report is %+v", got, made)
	}
}

func makeFiles(t *testing.T, dir string, start *link.Start, usual trustPlaces) *link.Trusted {
	t.Helper()
	files, err := createFiles(dir, start)
	if err != nil {
		t.Fatal(err)
	}
	made, err := files.fill(start, usual)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// readMade is a file that anybody may read.
func readMade(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode() != fileMode {
		t.Errorf("%s has mode %s (%v)", name, st.Mode(), err)
	}
	return b
}

func TestCreateFilesRefuses(t *testing.T) {
	start := func(name string) *link.Start { return &link.Start{Files: []link.File{{Name: name}}} }
	outside := filepath.Join(t.TempDir(), "outside")
	for what, prepare := range map[string]func(dir string) error{
		"a file":   func(dir string) error { return os.WriteFile(dir+"/name", nil, 0o644) },
		"a link":   func(dir string) error { return os.Symlink(outside, dir+"/name") },
		"no place": os.Remove,
	} {
		dir := t.TempDir()
		if err := prepare(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := createFiles(dir, start("name")); err == nil {
			t.Errorf("%s in the way is accepted", what)
		}
	}
	if _, err := os.Lstat(outside); !os.IsNotExist(err) {
		t.Errorf("the link was followed: %v", err)
	}
	if files, err := createFiles(t.TempDir(), start("../name")); err == nil {
		t.Errorf("a path is accepted: %v", files)
	}
	if files, err := createFiles("/nonexistent", &link.Start{}); err != nil || files != nil {
		t.Errorf("no files need a place: %v, %v", files, err)
	}
}

// TestReadInside: what is no ordinary file is not read, and a long one neither.
func TestReadInside(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/pipe", 0o644); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir+"/file", bytes.Repeat([]byte("x"), 100))
	for _, name := range []string{dir, dir + "/pipe", dir + "/absent", "/dev/zero", "/proc/self/maps", "/proc/self/environ"} {
		if b, err := readInside(name, 1<<20); err == nil {
			t.Errorf("%s: read %d bytes", name, len(b))
		}
	}
	if _, err := readInside(dir+"/file", 99); err == nil {
		t.Error("a file that is too long is read")
	}
	if b, err := readInside(dir+"/file", 100); err != nil || len(b) != 100 {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
}

// BenchmarkFill is what certificates add to the start of a run, with this machine's own list.
func BenchmarkFill(b *testing.B) {
	start := &link.Start{Trust: &link.Trust{CA: encodePEM("CERTIFICATE", newCertificate(b, "run"))}}
	for b.Loop() {
		files, err := createFiles(b.TempDir(), start)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := files.fill(start, usualPlaces()); err != nil {
			b.Fatal(err)
		}
	}
}
