package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/secret"
)

// attestations is where the manifest of a run is stored, by the policy's evidence.attest; nil: nowhere. What is known not to work is
// refused before the run.
func (a *app) attestations(p *policy.Policy, signer manifest.Signer) (*manifest.Attestations, error) {
	if !p.Evidence.Attest {
		return nil, nil
	}
	if fallback, ok := signer.(*manifest.FallbackSigner); ok {
		signer = fallback.First
	}
	if _, keyless := signer.(*manifest.KeylessSigner); !keyless {
		return nil, &runner.RefusedError{
			Reason: "the policy says evidence.attest, and the manifest would not be signed keyless, which is all that GitHub's attestations take",
			Hint:   "in a workflow of GitHub Actions give the job `permissions: {id-token: write, attestations: write}`; elsewhere leave evidence.attest out",
		}
	}
	at := &manifest.Attestations{
		API: cmp.Or(a.env("GITHUB_API_URL"), "https://api.github.com"), Server: cmp.Or(a.env("GITHUB_SERVER_URL"), "https://github.com"),
		Repository: a.env("GITHUB_REPOSITORY"), Token: secret.New(a.env(attestationsVariable)),
	}
	if at.Repository == "" || at.Token.IsEmpty() {
		return nil, &runner.RefusedError{
			Reason: "the policy says evidence.attest, and " + attestationsVariable + " and GITHUB_REPOSITORY do not say as whom and where",
			Hint:   "give the step `env: {" + attestationsVariable + ": ${{ github.token }}}`, and the job `permissions: {attestations: write}`",
		}
	}
	return at, nil
}

// attest stores the manifest of a run that has ended, whatever came of it, and returns the address of its page; empty if the policy
// does not ask for it.
func (a *app) attest(ctx context.Context, cfg runner.Config, result runner.Result) (page string, err error) {
	at, err := a.attestations(cfg.Policy, cfg.Signer)
	if at == nil || err != nil || result.Dir == "" {
		return "", err
	}
	file, err := readLimited(filepath.Join(result.Dir, runs.ManifestFile), manifest.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // that it could not be made has been said
	}
	if err != nil {
		return "", err
	}
	return at.Store(context.WithoutCancel(ctx), file)
}
