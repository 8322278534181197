package actions

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/runner/event"
)

var update = flag.Bool("update", false, "write the golden files")

func wantGolden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// What a reviewer reads of a run that did all sorts of things, and of one that was refused.
func TestSummaryGolden(t *testing.T) {
	busy := event.Summary{
		Run: "20261127-170155-84p2cg", Outcome: event.Success, Duration: 12345 * time.Millisecond, HostCount: 2,
		Start: &event.RunStarted{Kit: "claude", Argv: []string{"claude", "--print", "task"}, Policy: event.PolicyRef{Digest: "sha256:aa"}},
		Plan:  &event.RunPlanned{Image: event.Image{Reference: "ghcr.io/acme/image:1", ID: "sha256:bb"}, Mode: "copy"},
		Hosts: []event.Host{
			{Host: "api.example.org", Port: 443, Connections: 3, Up: 1200, Down: 45000},
			{Host: "down.example.org", Port: 443, Failed: 1, Reason: "connection refused"},
		},
		Refused:   []event.Refusal{{Proto: "tcp", Name: "evil.example", Port: 443, Count: 2, Add: "evil.example"}, {Proto: "http", Name: "api.example.org", Port: 443, Method: "DELETE", Path: "/x", Count: 1, Reason: "no rule allows it"}},
		Protected: []event.ProtectedTouched{{Path: ".github/workflows/ci.yml", Tier: "reject", Reason: "runs in CI"}},
		Lowered:   []event.Lowered{{What: "workspace", Why: "copied"}},
		Changes:   &event.ChangesExtracted{Added: 1, Modified: 2},
		Manifest:  &event.Manifest{SHA256: "cc", Signed: "keyless"},
		Counts:    event.Counts{RefusedConnections: 2, RefusedRequests: 1},
		Credentials: []event.CredentialState{{
			CredentialIssued: event.CredentialIssued{
				Name: "github", Source: "github-oidc", Hosts: []string{"github.com", "api.github.com"},
				Granted: &event.CredentialScope{Repositories: []event.CredentialRepository{{Name: "acme/shop"}}, Permissions: map[string]string{"contents": "write", "metadata": "read"}},
			},
			Used: &event.CredentialUsed{Requests: 4}, Revoked: event.RevocationVerified,
		}},
	}
	wantGolden(t, "testdata/summary.md", Report{
		Summary: busy, Applied: "commit 4711 on the branch agent/fix", Files: ".agent-sandbox-runs/x", Artifact: Artifact{ID: 7, Name: "agent-sandbox-test-1-x"},
		URL:    "https://github.com/acme/shop/actions/runs/1/artifacts/7",
		Verify: []string{"gh run download 1 --repo acme/shop --name agent-sandbox-test-1-x", "agent-sandbox manifest verify manifest.json --repository-id 1 --trusted-root trusted_root.json"},
		Local:  []string{"git checkout 4711", "agent-sandbox run --agent claude task"},
	}.Markdown())
	refused := event.Summary{Run: "20261127-170155-84p2ch", Outcome: event.Refused, ExitCode: 2, Reason: "the policy was refused: x", Start: &event.RunStarted{Argv: []string{"npm", "test"}}}
	refused.Manifest = &event.Manifest{SHA256: "dd", Signed: "none", Detail: "there is neither a key nor a job's identity to sign with"}
	wantGolden(t, "testdata/summary-refused.md", Report{Summary: refused}.Markdown())
}
