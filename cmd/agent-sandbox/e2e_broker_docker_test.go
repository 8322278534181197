//go:build docker

package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The broker's image serves as docs/broker has it: as nobody, with nothing to write to but its database, and nothing in it but the program.
func TestBrokerImage(t *testing.T) {
	if os.Getenv("DOCKER_HOST") != "" {
		t.Skip("the image of the broker is in the machine's own engine alone")
	}
	image, err := script("action-image", "broker")
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	name := "agent-sandbox-broker-" + strings.ToLower(rand.Text())
	server := exec.CommandContext(t.Context(), "docker", "run", "--rm", "--interactive", "--name", name, "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		"--volume", "/var/lib/broker", "--env", "BROKER_KEY="+string(text), image, "serve", "--config", "/dev/stdin")
	server.Stdin = strings.NewReader(`audience: broker.example.org
listen: ":8080"
database: /var/lib/broker/broker.db
issuers: [{issuer: "https://token.actions.githubusercontent.com", jwks: "https://token.actions.githubusercontent.com/.well-known/jwks"}]
ceiling: {contents: read}
apps: [{id: 1, owners: [acme], api: "https://api.github.com", key_env: BROKER_KEY}]
`)
	startBroker(t, server)
	defer func() {
		docker(t, nil, "stop", "--time", "40", name)
		if err := server.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	}()
	address := docker(t, nil, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
	client := &http.Client{Timeout: time.Minute}
	for path, want := range map[string]int{"/readyz": http.StatusOK, "/sts/exchange": http.StatusUnauthorized} {
		res, err := client.Get("http://" + address + ":8080" + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
	if top := strings.Join(strings.Fields(docker(t, nil, "top", name, "-o", "pid,uid,args")), " "); !strings.Contains(top, "65532 /agent-sandbox broker serve") {
		t.Errorf("runs as\n%s", top)
	}
	for _, line := range strings.Split(docker(t, nil, "diff", name), "\n") {
		if line != "" {
			t.Errorf("changed in the container: %s", line)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "exec", name, "/bin/sh", "-c", "id").CombinedOutput(); err == nil {
		t.Errorf("there is a shell: %s", out)
	}
}
