package broker

import (
	"errors"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/scaffold"
)

func admits(p *trustPolicy, job *claims, target repository) error {
	return errors.Join(p.admitsJob(job, "b.example"), p.admitsRepository(job, target), p.admitsEvent(job))
}

// Another repository is trusted by its id alone: a pattern that takes any id would let all of GitHub in.
func TestTrustOfAnotherRepository(t *testing.T) {
	job := &claims{Issuer: "https://i.example", Subject: "repo:evil/fork:ref:refs/heads/main", RepositoryID: "666", OwnerID: "6"}
	job.all = map[string]any{"repository_id": "666"}
	target := repository{ID: 7}
	target.Owner.ID = 8
	for pattern, want := range map[string]bool{"666": true, "7|666": true, ".*": false, "[0-9]+": false, "6{3}": false, "7": false} {
		p, err := parseTrust([]byte("issuer: https://i.example\nsubject_pattern: '.*'\nclaim_pattern: {repository_id: '" + pattern + "'}\npermissions: {contents: read}\n"))
		if err != nil {
			t.Fatal(err)
		}
		if err := admits(p, job, target); (err == nil) != want {
			t.Errorf("repository_id: %s: %v, want admitted %t", pattern, err, want)
		}
	}
}

// What `init` writes is a trust policy, for branches of the repository itself.
func TestTrustOfInit(t *testing.T) {
	files, err := scaffold.Files(scaffold.Project{Repository: "acme/shop"}, scaffold.Options{Image: "x", Action: "x"})
	if err != nil {
		t.Fatal(err)
	}
	var p *trustPolicy
	for _, f := range files {
		if f.Path == scaffold.TrustFile {
			if p, err = parseTrust([]byte(f.Content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if p == nil {
		t.Fatal("there is none")
	}
	target := repository{ID: 7}
	target.Owner.ID = 8
	for _, tt := range []struct {
		subject, id, event string
		want               bool
	}{
		{"repo:acme/shop:ref:refs/heads/main", "7", "push", true},
		{"repo:acme@8/shop@7:ref:refs/heads/main", "7", "workflow_dispatch", true},
		{"repo:acme/shop:pull_request", "7", "pull_request", false},
		{"repo:acme/shop:ref:refs/heads/main", "666", "push", false},
	} {
		job := &claims{Issuer: "https://token.actions.githubusercontent.com", Subject: tt.subject, RepositoryID: tt.id, OwnerID: "8", Event: tt.event}
		job.all = map[string]any{"repository": "acme/shop", "event_name": tt.event}
		if err := admits(p, job, target); (err == nil) != tt.want {
			t.Errorf("%s of %s for %s: %v", tt.subject, tt.id, tt.event, err)
		}
	}
	if strings.Contains(p.SubjectPattern, "pull") {
		t.Error("pull requests are named")
	}
}
