package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runs"
)

// Bounds of an upload in time. A step that was cancelled is killed soon.
const (
	uploadTime    = 20 * time.Minute
	cancelledTime = 5 * time.Second
)

// upload makes the run's files an artifact of the workflow run. Where there is no service for that, or it fails, they are in the workspace
// all the same, and the log says so; with `upload: always` that fails the step.
func (s *step) upload(ctx context.Context, p *policy.Policy, result runner.Result, dir string) (actions.Artifact, error) {
	if s.in.Upload == actions.UploadNever || result.Dir == "" {
		return actions.Artifact{}, nil
	}
	got, err := s.uploadTo(ctx, p, result)
	switch {
	case err == nil:
		s.log.Printf("uploaded as the artifact %s: %d bytes, sha256 %s", got.Name, got.Size, got.SHA256)
		if s.job.ArtifactURL(got.ID) == "" {
			s.log.Printf("it has no page of its own: that is GitHub's alone")
		}
	case s.in.Upload == actions.UploadAlways:
		return got, fmt.Errorf("upload: always: %w", err)
	case errors.Is(err, actions.ErrNoArtifacts):
		s.log.Printf("%v: the run's files are in %s of the workspace alone", err, dir)
	default:
		text := fmt.Sprintf("the run's files are in %s of the workspace alone, which goes with the job: %v", dir, err)
		s.log.Annotate(actions.Annotation{Level: actions.Warning, Title: "the record was not uploaded", Text: text})
	}
	return got, nil
}

func (s *step) uploadTo(ctx context.Context, p *policy.Policy, result runner.Result) (got actions.Artifact, err error) {
	service, err := s.job.Artifacts()
	if err != nil {
		return got, err
	}
	service.Mask = s.log.Mask
	service.Retried = func(what string) { s.log.Printf("once more: %s", what) }
	limit := uploadTime
	if ctx.Err() != nil {
		limit = cancelledTime
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	z, err := actions.NewZip(result.Dir, kept(), s.temp)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, z.Close()) }()
	return service.Upload(ctx, s.artifactName(result.Run), z, s.expires(p, time.Now()))
}

// artifactName is one that no other step of the workflow run has, in any job and attempt: the run's id is unique, the rest is for people.
func (s *step) artifactName(run string) string {
	job := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, s.job.Name)
	return fmt.Sprintf("agent-sandbox-%s-%d-%s", job[:min(len(job), 100)], max(1, s.job.RunAttempt), run)
}

// expires is when the artifact goes: by the input, or the policy's evidence.retain, within the repository's limit.
func (s *step) expires(p *policy.Policy, now time.Time) time.Time {
	const day = 24 * time.Hour
	days := s.in.Retention
	if days == 0 {
		days = int((p.Evidence.Retain + day - 1) / day)
	}
	if limit := s.job.RetentionDays; limit > 0 && days > limit {
		s.log.Printf("the artifact is kept %d days, the limit of the repository, and not %d: what must be kept longer has to be archived elsewhere", limit, days)
		days = limit
	}
	return now.Add(time.Duration(days) * day)
}

// verifyHint is how to check the artifact on one's own machine.
func (s *step) verifyHint(m *event.Manifest, got actions.Artifact) []string {
	if m == nil || got.ID == 0 || s.job.RunURL() == "" {
		return nil
	}
	lines := []string{commandLine([]string{"gh", "run", "download", strconv.FormatInt(s.job.RunID, 10), "--repo", s.job.Repository, "--name", got.Name})}
	switch manifest.Mode(m.Signed) {
	case manifest.Keyless:
		return append(lines, "gh attestation trusted-root >trusted_root.json",
			fmt.Sprintf("agent-sandbox manifest verify %s --repository-id %d --trusted-root trusted_root.json", runs.ManifestFile, s.job.RepositoryID))
	case manifest.Key:
		return append(lines, "agent-sandbox manifest verify "+runs.ManifestFile+" --key PUBLIC_KEY.pem")
	}
	return append(lines, "agent-sandbox manifest show "+runs.ManifestFile+" # nobody signed it")
}
