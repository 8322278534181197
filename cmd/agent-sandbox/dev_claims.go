package main

import (
	"cmp"
	"context"
	"maps"
	"path"
	"regexp"
	"strings"

	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/scaffold"
)

var (
	claimName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	ownerName = regexp.MustCompile(`^([A-Za-z0-9-]+)/[A-Za-z0-9._-]+$`)
)

// localClaims are those of a job on GitHub (https://docs.github.com/en/actions/reference/security/oidc), as far as they make sense here.
func (a *app) localClaims(ctx context.Context, f oidcFlags) (map[string]string, error) {
	given, err := parseClaims(f.claims)
	if err != nil {
		return nil, err
	}
	project, _, err := a.project("")
	if err != nil {
		return nil, err
	}
	if f.repository == "" {
		found, err := scaffold.Detect(project)
		if err != nil {
			return nil, err
		}
		f.repository = cmp.Or(found.Repository, "local/project")
	}
	owner := ownerName.FindStringSubmatch(f.repository)
	if owner == nil {
		return nil, usage("--repository: %q is not owner/name", f.repository)
	}
	if !strings.HasPrefix(f.ref, "refs/") {
		return nil, usage("--ref: %q is not a whole ref\nhint: refs/heads/%s", f.ref, f.ref)
	}
	sha := cmp.Or(runner.SourceState(ctx, project).Commit, strings.Repeat("0", 40))
	return jobClaims(f.repository, owner[1], f.ref, sha, given), nil
}

func parseClaims(list []string) (map[string]string, error) {
	given := map[string]string{}
	for _, kv := range list {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || !claimName.MatchString(name) {
			return nil, usage("--claim: %q is not NAME=VALUE", kv)
		}
		given[name] = value
	}
	return given, nil
}

// jobClaims has every claim that GitHub's tokens have. Those that follow from others follow from what was given, too.
func jobClaims(repository, owner, ref, sha string, given map[string]string) map[string]string {
	kind := "branch"
	if strings.HasPrefix(ref, "refs/tags/") {
		kind = "tag"
	}
	claims := map[string]string{
		"repository": repository, "repository_id": "0", "repository_owner": owner, "repository_owner_id": "0", "repository_visibility": "private",
		"ref": ref, "ref_type": kind, "ref_protected": "false", "sha": sha, "base_ref": "", "head_ref": "",
		"event_name": "workflow_dispatch", "actor": "local", "actor_id": "0", "runner_environment": "local",
		"run_id": "1", "run_number": "1", "run_attempt": "1", "check_run_id": "1",
	}
	maps.Copy(claims, given)
	derive := func(name, value string) {
		if _, ok := given[name]; !ok {
			claims[name] = value
		}
	}
	derive("workflow_ref", claims["repository"]+"/"+scaffold.WorkflowFile+"@"+claims["ref"])
	file, _, _ := strings.Cut(claims["workflow_ref"], "@")
	derive("workflow", strings.TrimSuffix(path.Base(file), path.Ext(file)))
	derive("workflow_sha", claims["sha"])
	derive("job_workflow_ref", claims["workflow_ref"]) // but for a job of a reusable workflow
	derive("job_workflow_sha", claims["workflow_sha"])
	derive("sub", "repo:"+claims["repository"]+":"+subject(claims))
	return claims
}

// subject is what GitHub puts behind the repository, if nobody customised it.
func subject(claims map[string]string) string {
	switch {
	case claims["environment"] != "":
		return "environment:" + strings.ReplaceAll(claims["environment"], ":", "%3A")
	case claims["event_name"] == "pull_request":
		return "pull_request"
	}
	return "ref:" + claims["ref"]
}
