package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runs"
)

// verifyFlags are the flags of manifest verify: what is accepted.
type verifyFlags struct {
	key, identity, issuer, repository, owner, trusted string
	artifacts, trees, policies                        []string
	requireLog, json                                  bool
}

func (a *app) manifestVerifyCommand() *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use:   "verify [flags] FILE|RUN...",
		Short: "Check who signed manifests, and that they are about the files at hand",
		Long: `verify answers seven questions about each manifest, offline: is it a statement of this version (syntax), are these bytes signed
(signature), by whom (identity), when (time), does a log of signatures have it (log), are the files at hand the ones that it is
about (binding), and did an acceptable policy govern the run (policy). What is accepted comes from the flags alone, never from the manifest.

Name who has to have signed: --key for a public key; for a job on GitHub --repository-id, --owner-id (of the organisation), or
--identity with --issuer, and the certificate authorities with --trusted-root (sigstore's trusted_root.json; "gh attestation trusted-root" and "cosign
trusted-root create" write it). Names of repositories can change hands, their ids can't.

A manifest that says it is in a log of signatures (Rekor) has to be, if the trusted root names such logs; --require-tlog asks that of every
manifest. Where no timestamp authority has signed, the time is that of the log, and so there has to be one.

For a RUN, and for a FILE that lies beside them, the events, the patch and the logs are compared too.

Exit status: 0 if all that was asked holds, 1 if anything fails, 2 for wrong usage.`,
		Example: `  agent-sandbox manifest verify last --key signing.pem.pub
  agent-sandbox manifest verify manifest.json --repository-id 1296269 --trusted-root trusted_root.json --artifact changes.patch`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeRuns(0),
		RunE:              func(_ *cobra.Command, args []string) error { return a.verifyManifests(f, args) },
	}
	flags := c.Flags()
	flags.StringVar(&f.key, "key", "", "public key (PEM) that has to have signed")
	flags.StringVar(&f.identity, "identity", "", "subject of the certificate, such as the URL of a workflow at a ref")
	flags.StringVar(&f.issuer, "issuer", "", "issuer of that identity; for ids it is GitHub's if not given")
	flags.StringVar(&f.repository, "repository-id", "", "GitHub's id of the repository whose workflow has to have signed")
	flags.StringVar(&f.owner, "owner-id", "", "GitHub's id of the user or organisation whose repository it has to be")
	flags.StringVar(&f.trusted, "trusted-root", "", "file with the authorities that are trusted, for certificates and timestamps, and the logs")
	flags.BoolVar(&f.requireLog, "require-tlog", false, "the signature has to be in a transparency log that the trusted root names")
	flags.StringArrayVar(&f.artifacts, "artifact", nil, "file that has to be a subject of the manifest, such as a patch; repeatable")
	flags.StringArrayVar(&f.trees, "tree", nil, "git tree that has to be a subject, such as that of a commit: $(git rev-parse REV^{tree}); repeatable")
	flags.StringArrayVar(&f.policies, "policy-digest", nil, "`DIGEST` of an acceptable policy (\"policy check\" prints it); repeatable")
	flags.BoolVar(&f.json, "json", false, "print JSON")
	c.MarkFlagsMutuallyExclusive("key", "identity")
	c.MarkFlagsMutuallyExclusive("key", "repository-id")
	c.MarkFlagsMutuallyExclusive("key", "owner-id")
	return c
}

// verifiedManifestJSON is an item of `manifest verify --json`: a contract, to which fields are only added.
type verifiedManifestJSON struct {
	Manifest string `json:"manifest"`
	Run      string `json:"run,omitempty"`
	OK       bool   `json:"ok"`
	manifest.Report
}

func (a *app) verifyManifests(f verifyFlags, names []string) error {
	accept, err := f.acceptance()
	if err != nil {
		return err
	}
	all := []verifiedManifestJSON{}
	failed := false
	var unread []error // one that can't be read hides nothing of the others
	for _, name := range names {
		out, err := a.verifyManifest(name, accept)
		if err != nil {
			unread = append(unread, err)
			continue
		}
		failed = failed || !out.OK
		all = append(all, out)
	}
	if f.json {
		err = a.answerJSON(all)
	} else {
		err = a.answer(func(w io.Writer) error { return a.printVerifiedManifests(w, all) })
	}
	err = errors.Join(append(unread, err)...)
	if failed {
		return &statusError{code: exitError, err: err}
	}
	return err
}

// acceptance is what the flags accept. Accepting anybody is not among it.
func (f verifyFlags) acceptance() (manifest.Acceptance, error) {
	a := manifest.Acceptance{
		Identity: f.identity, Issuer: f.issuer, Repository: f.repository, Owner: f.owner, Policies: f.policies, Trees: f.trees, RequireLog: f.requireLog,
	}
	switch {
	case f.key == "" && f.identity == "" && f.repository == "" && f.owner == "":
		return a, usage("nobody is named who has to have signed\nhint: --key FILE, --repository-id N, --owner-id N, or --identity ID --issuer URL")
	case f.identity != "" && f.issuer == "" && f.repository == "" && f.owner == "":
		return a, usage("--identity needs --issuer: without it anybody could have given that name\nhint: for jobs on GitHub it is %s", manifest.GitHubIssuer)
	case f.requireLog && f.trusted == "":
		return a, usage("--require-tlog needs --trusted-root, which names the logs")
	case f.key == "" && f.trusted == "":
		return a, usage("certificates need --trusted-root\nhint: `gh attestation trusted-root >trusted_root.json`, or `cosign trusted-root create`")
	}
	if f.key != "" {
		text, err := readLimited(f.key, maxSigningKey)
		if err != nil {
			return a, usage("--key: %w", err)
		}
		if a.Key, err = manifest.ParsePublicKey(text); err != nil {
			return a, usage("--key: %s: %w", f.key, err)
		}
	}
	if f.trusted != "" {
		text, err := readLimited(f.trusted, maxCAFile)
		if err != nil {
			return a, usage("--trusted-root: %w", err)
		}
		if a.Trusted, err = manifest.ParseTrustedRoot(text); err != nil {
			return a, usage("--trusted-root: %s: %w", f.trusted, err)
		}
	}
	for _, name := range f.artifacts {
		sum, err := fileDigest(name)
		if err != nil {
			return a, usage("--artifact: %w", err)
		}
		a.Artifacts = append(a.Artifacts, manifest.Artifact{Name: name, SHA256: sum})
	}
	return a, nil
}

func fileDigest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// verifyManifest verifies that of a run, or a file if the name is one, with what lies beside it.
func (a *app) verifyManifest(name string, accept manifest.Acceptance) (out verifiedManifestJSON, err error) {
	err = a.withManifest(name, func(where string, content []byte, beside fs.FS) error {
		accept.Files = beside
		out = verified(where, content, accept)
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, runs.ErrNotFound) {
		err = usage("%w", err) // 1 would say that a manifest failed
	}
	return out, err
}

func verified(name string, content []byte, accept manifest.Acceptance) verifiedManifestJSON {
	report := manifest.Verify(content, accept)
	out := verifiedManifestJSON{Manifest: name, OK: report.OK(), Report: report}
	if report.Statement != nil {
		out.Run = report.Statement.Predicate.Run
	}
	return out
}

func (a *app) printVerifiedManifests(out io.Writer, all []verifiedManifestJSON) error {
	paint := painter(a.color(a.stdout))
	for _, m := range all {
		word := paint.paint(red, "NOT VERIFIED")
		if m.OK {
			word = paint.paint(green, "verified")
		}
		if _, err := fmt.Fprintf(out, "%s: %s\n", printableLine(m.Manifest), word); err != nil {
			return err
		}
		w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		for _, v := range m.Verdicts {
			fmt.Fprintf(w, "  %s\t%s\t%s\n", v.Axis, v.State, printableLine(strings.ReplaceAll(v.Detail, "\n", "; ")))
		}
		if j := m.Job; j != nil && m.OK && j.RunURL != "" {
			fmt.Fprintf(w, "  job\t\t%s, workflow at %s\n", printableLine(j.RunURL), printableLine(j.WorkflowSHA))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}
