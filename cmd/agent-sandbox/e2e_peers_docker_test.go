//go:build docker

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The servers of the network's tests are programs that everybody knows, in a container on the host's loopback; the clients
// are such programs in the sandbox. See testdata/peers.

// peersImage has both.
func peersImage() string { return cmp.Or(os.Getenv("PEERS"), "agent-sandbox-peers:dev") }

// largeFile is the size in bytes of what is downloaded and uploaded.
const largeFile = 2 << 30

// peers are the servers.
type peers struct {
	container string
	ports     map[string]string // by the name of testdata/peers/serve's variable
	ca        []byte            // PEM; has signed what they show for *.peer.test
	caFile    string
	keystore  string // the same for Java
}

// startPeers starts the servers for as long as the test lives. The engine that they run on is the machine's own, whichever
// one is tested.
func startPeers(t *testing.T) *peers {
	t.Helper()
	if os.Getenv("DOCKER_HOST") != "" {
		t.Skip("the image of the peers is in the machine's own engine alone")
	}
	dir := t.TempDir()
	p := &peers{ports: map[string]string{}, ca: writeCertificates(t, dir), caFile: filepath.Join(dir, "ca.pem")}
	here, err := filepath.Abs("../../testdata/peers")
	if err != nil {
		t.Fatal(err)
	}
	p.container = "agent-sandbox-test-peers-" + strconv.Itoa(os.Getpid())
	args := []string{
		"run", "--detach", "--name", p.container, "--network", "host", "--user", "root",
		"--volume", dir + ":/certs:ro", "--volume", here + ":/peers:ro", "--env", fmt.Sprintf("LARGE=%d", largeFile),
	}
	for name, port := range freePorts(t, "HTTP", "HTTPS", "NPM", "STREAM", "GRPC", "PG") {
		p.ports[name] = port
		args = append(args, "--env", name+"="+port)
	}
	defaultEngine(t, append(args, peersImage(), "/peers/serve")...)
	t.Cleanup(func() { defaultEngine(t, "rm", "--force", "--volumes", p.container) })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	logs := dockerOfDefault(ctx, "logs", "--follow", p.container)
	logs.Stderr = os.Stderr
	out, err := logs.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := logs.Start(); err != nil {
		t.Fatal(err)
	}
	awaitLine(t, out, "peers: ready")
	cancel()
	_ = logs.Wait()
	p.keystore = p.makeKeystore(t)
	return p
}

// makeKeystore has Java's own tool make it.
func (p *peers) makeKeystore(t *testing.T) string {
	t.Helper()
	encoded := defaultEngine(t, "exec", p.container, "sh", "-c",
		"keytool -importcert -noprompt -alias peers -file /certs/ca.pem -keystore /tmp/ca.p12 -storepass changeit >/dev/null 2>&1; base64 -w 0 /tmp/ca.p12")
	store, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	return string(store)
}

// dockerOfDefault is a command of Docker's own client, on the machine's own engine.
func dockerOfDefault(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "DOCKER_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	return cmd
}

func defaultEngine(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	out, err := dockerOfDefault(ctx, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// freePorts finds a port of loopback for each name.
func freePorts(t *testing.T, names ...string) map[string]string {
	t.Helper()
	ports := map[string]string{}
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // not before all have one
		_, ports[name], _ = net.SplitHostPort(l.Addr().String())
	}
	return ports
}

// writeCertificates makes an authority and the certificate of *.peer.test: ca.pem, server.pem and server.key. It returns the
// first.
func writeCertificates(t *testing.T, dir string) []byte {
	t.Helper()
	caKey, caTemplate := newKey(t), &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the peers' authority"}, IsCA: true, BasicConstraintsValid: true,
		SubjectKeyId: []byte("peers"), // which Python wants to find in what it signs
		KeyUsage:     x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	serverKey, serverTemplate := newKey(t), &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "peer"}, DNSNames: []string{"*.peer.test", "peer.test"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		KeyUsage:  x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	ca := certificate(t, caTemplate, caTemplate, &caKey.PublicKey, caKey)
	key, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"ca.pem":     ca,
		"server.pem": certificate(t, serverTemplate, caTemplate, &serverKey.PublicKey, caKey),
		"server.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return ca
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certificate(t *testing.T, template, parent *x509.Certificate, public any, signer any) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// awaitLine reads until the line is there.
func awaitLine(t *testing.T, r interface{ Read([]byte) (int, error) }, want string) {
	t.Helper()
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	for !bytes.Contains(seen.Bytes(), []byte(want+"\n")) {
		n, err := r.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("no line %q: %v\n%s", want, err, seen.String())
		}
	}
}
