package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// brokerConfigText has the issuer, GitHub's API, the App and the database to fill in.
const brokerConfigText = `audience: broker.example.org
listen: "127.0.0.1:0"
database: %[4]q
issuers: [{issuer: %[1]q, jwks: %[1]s/.well-known/jwks}]
ceiling: {contents: read}
apps: [{id: %[3]d, owners: [acme], api: %[2]q, key_env: BROKER_KEY}]
limits: {per_address: 500}
`

// TestBrokerCommands serves, explains and attacks as an operator does: three programs, with GitHub and the issuer beside them.
func TestBrokerCommands(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("ends the broker by SIGTERM")
	}
	gh, oidc := runnertest.NewGitHub(t, runnertest.GitHubConfig{}), runnertest.NewOIDC(t)
	repo := gh.AddRepository("acme/shop")
	app := gh.AddApp(map[string]string{"contents": "write", "metadata": "read"})
	gh.Install(app, "acme")
	repo.WriteFile(".github/agent-sandbox/trust/agent-sandbox.yaml", "issuer: "+oidc.URL+"\nsubject_pattern: repo:acme/shop:.*\npermissions: {contents: write}\n")
	config := filepath.Join(t.TempDir(), "broker.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, brokerConfigText, oidc.URL, gh.API(), app.ID, filepath.Join(t.TempDir(), "broker.db")), 0o600); err != nil {
		t.Fatal(err)
	}
	claims := runnertest.JobClaims(repo)
	claims["aud"] = "broker.example.org"
	requestURL, requestToken := oidc.ActionsServer(runnertest.JobClaims(repo))
	program := func(stdin string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "agent-sandbox", append([]string{"broker"}, args...)...)
		cmd.Env = append(os.Environ(), "BROKER_KEY="+string(app.PEM()), "ACTIONS_ID_TOKEN_REQUEST_URL="+requestURL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN="+requestToken)
		cmd.Stdin = strings.NewReader(stdin)
		return cmd
	}
	server := program("", "serve", "--config", config)
	address, logged := startBroker(t, server)

	token := oidc.Mint(claims)
	out, err := program(token+"\n", "explain", "--config", config, "--scope", "acme/shop", "-").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "would be granted: contents: read\n") || strings.Contains(string(out), token) {
		t.Errorf("explain: %v\n%s", err, out)
	}
	out, err = program("", "explain", "--config", config, "--scope", "acme/shop", "--json", oidc.Mint(runnertest.JobClaims(repo))).Output()
	var e struct{ Admitted bool }
	if jsonErr := json.Unmarshal(out, &e); exitOf(err) != 1 || jsonErr != nil || e.Admitted {
		t.Errorf("explain of a token for nobody: %v, %v\n%s", err, jsonErr, out)
	}

	attack := []string{"selftest", "--issuer", oidc.URL, "--audience", "broker.example.org", "http://" + address}
	out, err = program("", attack...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), " 0 broken, 0 unclear, ") || !strings.Contains(string(out), "replayed jti\n") {
		t.Errorf("selftest: %v\n%s", err, out)
	}
	attack[len(attack)-1] = gh.URL // no broker
	out, err = program("", append(attack, "--json")...).Output()
	var s struct {
		Passed  bool
		Results []struct{ Name string }
	}
	if jsonErr := json.Unmarshal(out, &s); exitOf(err) != 1 || jsonErr != nil || s.Passed || len(s.Results) < 30 {
		t.Errorf("selftest of what is no broker: %v, %v\n%s", err, jsonErr, out)
	}

	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(logged)
	if err := server.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if err != nil || !strings.Contains(string(text), "broker drains") || strings.Contains(string(text), token) {
		t.Errorf("log: %v\n%s", err, text)
	}
}

func exitOf(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return -1
}

// startBroker waits for the line that has its address. The rest of the log is for the caller.
func startBroker(t *testing.T, server *exec.Cmd) (address string, logged io.Reader) {
	t.Helper()
	pipe, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the broker did not start: %v: %s", err, line)
		}
		var entry struct{ Msg, Address string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "broker serves" {
			return entry.Address, lines
		}
	}
}
