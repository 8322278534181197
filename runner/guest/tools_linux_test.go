//go:build docker

package guest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/link"
)

const javaFetch = `
import java.net.*; import java.net.http.*;
class Fetch {
	public static void main(String[] args) throws Exception {
		var request = HttpRequest.newBuilder(URI.create(args[0])).build();
		System.out.println(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
	}
}
`

// TestToolsTrust: the tools of this machine which the agent image lacks accept a server of the run's authority by means
// of the files that the guest makes, and refuse it without.
func TestToolsTrust(t *testing.T) {
	authority, url := serveTLS(t)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	bundle := in(link.BundleFile)
	makeFiles(t, dir, &link.Start{
		Files: []link.File{
			{Name: "wgetrc", Content: []byte("\nca_certificate = " + bundle + "\n"), After: "/etc/wgetrc"},
			{Name: "apt.conf", Content: []byte("\nAcquire::https::CaInfo \"" + bundle + "\";\n")},
		},
		Trust: &link.Trust{CA: authority},
	}, usualPlaces())
	writeFile(t, in("Fetch.java"), []byte(javaFetch))
	for _, parent := range []string{dir, filepath.Dir(dir)} { // apt fetches as a user of its own
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	store := "-Djavax.net.ssl.trustStore=" + in(link.StoreFile) + " -Djavax.net.ssl.trustStoreType=JKS -Djavax.net.ssl.trustStorePassword=" + link.StorePassword
	for _, tt := range []struct{ name, variable, refusal, command string }{
		{"wget", "SYSTEM_WGETRC=" + in("wgetrc"), "certificate", "wget -O - " + url},
		{"apt", "APT_CONFIG=" + in("apt.conf"), "certificate", "/usr/lib/apt/apt-helper download-file " + url + " " + in("fetched")},
		{"java", "JAVA_TOOL_OPTIONS=" + store, "certification path", "java " + in("Fetch.java") + " " + url},
		{"requests", "REQUESTS_CA_BUNDLE=" + bundle, "CERTIFICATE_VERIFY_FAILED", "python3 -c SCRIPT"},
		{"node", "NODE_EXTRA_CA_CERTS=" + in(link.CAFile), "certificate", "node -e fetch('" + url + "').catch(e=>{console.error(e.cause);process.exit(1)})"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.command)
			if tt.name == "requests" {
				args[2] = "import requests; requests.get('" + url + "').raise_for_status()"
				if err := exec.Command("python3", "-c", "import requests").Run(); err != nil {
					t.Skip("python3 has no requests here")
				}
			}
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skip("not installed here: ", err)
			}
			if out, err := runTool(args, tt.variable); err != nil {
				t.Errorf("%s does not accept the server: %v\n%s", tt.name, err, out)
			}
			if out, err := runTool(args, ""); err == nil || !strings.Contains(out, tt.refusal) {
				t.Errorf("%s without the variable: %v\n%s", tt.name, err, out)
			}
		})
	}
}

// runTool runs a command with one variable, and nothing else of this process' that tells what to trust.
func runTool(args []string, variable string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(), "LC_ALL=C"}
	if variable != "" {
		cmd.Env = append(cmd.Env, variable)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// serveTLS starts a server on loopback, and returns the authority that has signed its certificate, in PEM.
func serveTLS(t *testing.T) (authority []byte, url string) {
	t.Helper()
	der := newAuthority(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine\n") }))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{der.leaf(t)}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the refusals
	server.StartTLS()
	t.Cleanup(server.Close)
	return encodePEM("CERTIFICATE", der.cert.Raw), strings.Replace(server.URL, "127.0.0.1", "localhost", 1) + "/"
}

// testAuthority signs certificates.
type testAuthority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) testAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the run"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return testAuthority{cert, key}
}

func (a testAuthority) leaf(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
