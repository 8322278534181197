package main

import (
	"maps"
	"slices"
	"testing"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// What a trust policy asks of a job's token can be asked of a local one: it has each claim of GitHub's.
func TestLocalClaims(t *testing.T) {
	want := runnertest.JobClaims(runnertest.NewGitHub(t, runnertest.GitHubConfig{}).AddRepository("acme/shop"))
	got := jobClaims("acme/shop", "acme", "refs/heads/main", "0123", nil)
	if a, b := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(a, b) {
		t.Errorf("the claims are %v, GitHub's are %v", a, b)
	}
	for _, tt := range []struct {
		ref   string
		given map[string]string
		claim string
		want  string
	}{
		{claim: "sub", want: "repo:acme/shop:ref:refs/heads/main"},
		{claim: "job_workflow_ref", want: "acme/shop/.github/workflows/agent-sandbox.yml@refs/heads/main"},
		{claim: "job_workflow_sha", want: "0123"},
		{claim: "workflow", want: "agent-sandbox"},
		{ref: "refs/tags/v1", claim: "ref_type", want: "tag"},
		{given: map[string]string{"environment": "a:b"}, claim: "sub", want: "repo:acme/shop:environment:a%3Ab"},
		{given: map[string]string{"event_name": "pull_request"}, claim: "sub", want: "repo:acme/shop:pull_request"},
		{given: map[string]string{"event_name": "pull_request", "sub": "mine"}, claim: "sub", want: "mine"},
		{given: map[string]string{"workflow_ref": "acme/shop/.github/workflows/ci.yml@refs/heads/main"}, claim: "workflow", want: "ci"},
		{
			given: map[string]string{"workflow_ref": "acme/shop/.github/workflows/ci.yml@refs/heads/main"},
			claim: "job_workflow_ref", want: "acme/shop/.github/workflows/ci.yml@refs/heads/main",
		},
	} {
		ref := tt.ref
		if ref == "" {
			ref = "refs/heads/main"
		}
		if got := jobClaims("acme/shop", "acme", ref, "0123", tt.given)[tt.claim]; got != tt.want {
			t.Errorf("%s of %q with %v is %q, want %q", tt.claim, ref, tt.given, got, tt.want)
		}
	}
}
