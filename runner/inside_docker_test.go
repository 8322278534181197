//go:build docker

package runner

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

//go:embed testdata/trust.py
var trustScript []byte

// trial is one answer of trust.py.
type trial struct {
	Tool     string `json:"tool"`
	Trusting int    `json:"trusting"` // exit status with the sandbox's variables
	Without  int    `json:"without"`  // and without them
	Output   string `json:"output"`
	Error    string `json:"error"` // what it said without
}

// TestTrustInside: the tools of the image accept a server whose certificate the run's authority has signed, by nothing
// but the sandbox's variables; without these they refuse it.
func TestTrustInside(t *testing.T) {
	l := testLab(t)
	authority, serve := authorityOf(t)
	b := l.start(t, setup{
		name: "trust", seam: seam{authority: authority},
		prepare: func(t *testing.T, project string) {
			put(t, project, "trust.py", trustScript)
			put(t, project, "server.txt", serve)
			put(t, project, "company.crt", authority)
		},
		policy: "env: ['PIP_CERT=/workspace/company.crt', 'AWS_CA_BUNDLE=/nowhere.pem']\n",
	}, []string{"python3", "trust.py"}, nil)
	if b.err != nil || b.result.ExitCode != 0 {
		t.Fatalf("exit %d, %v\n%s%s", b.result.ExitCode, b.err, b.stdout, b.stderr)
	}
	var trials []trial
	if err := json.Unmarshal(b.stdout, &trials); err != nil {
		t.Fatalf("%v in %s", err, b.stdout)
	}
	if len(trials) < 5 {
		t.Errorf("only %d tools were tried", len(trials))
	}
	for _, tt := range trials {
		switch {
		case tt.Trusting != 0:
			t.Errorf("%s does not accept the server: %s", tt.Tool, tt.Output)
		case tt.Without == 0:
			t.Errorf("%s accepts the server without the variables as well, so that nothing is shown", tt.Tool)
		case !strings.Contains(strings.ToLower(tt.Error), "certificate"):
			t.Errorf("%s fails without the variables for another reason: %s", tt.Tool, tt.Error)
		}
	}
	var trusted *event.Trust
	for _, e := range b.events {
		if m, ok := e.(event.GuestMeasured); ok {
			trusted = m.Trust
		}
	}
	if trusted == nil || trusted.Certificates < 100 {
		t.Fatalf("the record has %+v", trusted)
	}
	if !slices.Contains(trusted.Sources, "/workspace/company.crt") || !slices.Contains(trusted.Sources, "/etc/ssl/certs/ca-certificates.crt") {
		t.Errorf("the certificates come from %q", trusted.Sources)
	}
	if !strings.Contains(strings.Join(trusted.Missing, "\n"), "/nowhere.pem") {
		t.Errorf("it is not recorded that a file is missing: %q", trusted.Missing)
	}
}

// TestTrustInsideOfRoot: an agent with uid 0 is served likewise.
func TestTrustInsideOfRoot(t *testing.T) {
	l := testLab(t)
	authority, _ := authorityOf(t)
	b := l.start(t, setup{name: "trust as root", seam: seam{authority: authority}, policy: "user: root\n"},
		[]string{"sh", "-c", "cat " + caPath}, nil)
	if b.err != nil || !strings.Contains(string(b.stdout), strings.TrimSpace(string(authority))) {
		t.Errorf("exit %d, %v\n%s%s", b.result.ExitCode, b.err, b.stdout, b.stderr)
	}
}

// change tries to alter the sandbox's own files in every way, and says what it got to. That it writes beside them shows
// that the attempts are right.
const change = `
	d=/run/agent-sandbox
	for f in $d/*; do
		test -r $f || echo "unreadable $f" >&2
		{ chmod 644 $f || echo x >>$f || rm $f; } 2>/dev/null && echo "changed $f" >&2
	done
	{ echo x >$d/new || mkdir $d/dir || mv $d /run/elsewhere || rmdir $d || ln -s / $d/link; } 2>/dev/null && echo "changed $d" >&2
	{ echo x >/run/new && mkdir /run/dir && mv /run/dir /run/elsewhere && rmdir /run/elsewhere; } && echo "control works" >&2
`

// TestFilesInside: the agent reads the sandbox's files, and changes nothing about them. An agent with uid 0, whose files
// they are, does: so it is their owner that protects them.
func TestFilesInside(t *testing.T) {
	l := testLab(t)
	authority, _ := authorityOf(t)
	b := l.start(t, setup{name: "files", seam: seam{authority: authority}, policy: "env: [SYSTEM_WGETRC=/etc/shadow]\n"},
		[]string{"sh", "-c", `cat "$AGENT_SANDBOX_POLICY"; cat "$SYSTEM_WGETRC" >&2; ls -ln /run/agent-sandbox >&2;` + change}, nil)
	var in InsidePolicy
	if err := json.Unmarshal(b.stdout, &in); err != nil || in.Version != InsidePolicyVersion || in.Workspace.Path != WorkspaceTarget {
		t.Errorf("the policy inside is %s (%v, %v)", b.stdout, err, b.err)
	}
	said := string(b.stderr)
	if strings.Contains(said, "changed") || strings.Contains(said, "unreadable") {
		t.Errorf("the agent got its way:\n%s", said)
	}
	if !strings.Contains(said, "control works") {
		t.Errorf("the control does not work:\n%s", said)
	}
	if strings.Contains(said, "root:") || !strings.Contains(said, "ca_certificate = "+bundlePath) {
		t.Errorf("the guest copied what the agent may not read, or lost its own line:\n%s", said)
	}
	for _, name := range []string{insidePolicyFile, link.CAFile, link.BundleFile, link.StoreFile, "wgetrc", "apt.conf"} {
		if !strings.Contains(said, " "+name+"\n") {
			t.Errorf("%s is not there:\n%s", name, said)
		}
	}
	root := l.start(t, setup{name: "files of root", seam: seam{authority: authority}, policy: "user: root\n"}, []string{"sh", "-c", change}, nil)
	if n := strings.Count(string(root.stderr), "changed"); n != 7 {
		t.Errorf("root changed %d of the files and their directory, so the attempts are not what they should be:\n%s", n, root.stderr)
	}
}

func put(t *testing.T, project, name string, content []byte) {
	t.Helper()
	file := filepath.Join(project, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// authorityOf is a certificate authority in PEM, and the key and certificate of a server on 127.0.0.1 that it has signed.
func authorityOf(t *testing.T) (authority, server []byte) {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	certify := func(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) []byte {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	caKey, key := newKey(), newKey()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the run"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER := certify(ca, ca, caKey, caKey)
	ca, err := x509.ParseCertificate(caDER) // with its key id, which Python since 3.13 wants named in what is signed
	if err != nil {
		t.Fatal(err)
	}
	leaf := certify(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, key, caKey)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	return block("CERTIFICATE", caDER), append(block("PRIVATE KEY", secret), block("CERTIFICATE", leaf)...)
}
