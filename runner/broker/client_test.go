package broker

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// octoClient makes the two requests that octo-sts' action makes, as it makes them, and takes from the answer what it takes.
const octoClient = `
const bearer = (token) => ({ headers: { Authorization: "Bearer " + token } });
const { ACTIONS_ID_TOKEN_REQUEST_URL: url, ACTIONS_ID_TOKEN_REQUEST_TOKEN: request, DOMAIN: domain, SCOPE: scope, IDENTITY: identity } = process.env;
(async () => {
  const job = await fetch(url + "&audience=" + domain, bearer(request));
  if (!job.ok) throw new Error("job token: " + job.status);
  const answer = await fetch("https://" + domain + "/sts/exchange?scope=" + scope + "&identity=" + identity, bearer((await job.json()).value));
  const body = await answer.json();
  if (!answer.ok || !body.token) throw new Error(answer.status + " " + body.message);
  process.stdout.write(body.token);
})().catch((e) => { console.error(e.message); process.exit(1); });
`

// TestClientOfOctoSTS exchanges as octo-sts' JavaScript action does: by node's fetch, over TLS, with the broker's domain as audience.
func TestClientOfOctoSTS(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed: octo-sts' client is JavaScript")
	}
	w := newWorld(t)
	server := httptest.NewTLSServer(w.b)
	t.Cleanup(server.Close)
	domain := server.Listener.Addr().String()
	w.b.cfg.Audience = domain
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	claims := w.claims(nil)
	url, token := w.oidc.ActionsServer(claims)
	client := func(identity string) (string, string, error) {
		cmd := exec.CommandContext(t.Context(), node, "-e", octoClient)
		cmd.Env = []string{
			"NODE_EXTRA_CA_CERTS=" + ca, "ACTIONS_ID_TOKEN_REQUEST_URL=" + url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + token,
			"DOMAIN=" + domain, "SCOPE=acme/shop", "IDENTITY=" + identity,
		}
		var complaint strings.Builder
		cmd.Stderr = &complaint
		out, err := cmd.Output()
		return string(out), complaint.String(), err
	}
	got, complaint, err := client("ci")
	if live := w.gh.Live(); err != nil || len(live) != 1 || live[0].Text != got {
		t.Errorf("token %d bytes, %v: %s; %d live", len(got), err, complaint, len(live))
	}
	if _, complaint, err := client("nobody"); err == nil || !strings.Contains(complaint, "404 no such repository or identity") {
		t.Errorf("an identity that is not there: %v: %s", err, complaint)
	}
}
