package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/image"
	"github.com/org/agent-sandbox/runner/scaffold"
)

// initFlags are the flags of init.
type initFlags struct {
	agent, image, workspace          string
	ciOnly, yes, force, json, noLock bool
	rotation                         bool
}

// initTable is the files that init writes.
func initTable() string {
	var b strings.Builder
	for _, row := range [][2]string{
		{scaffold.PolicyFile, "what an agent sees, reaches and may use"},
		{scaffold.DockerfileFile, "the image, where the usual one lacks the project's tools"},
		{image.LockFile, "which image that is, by digest (builds it)"},
		{scaffold.WorkflowFile, "runs it on GitHub, or locally with act"},
		{scaffold.TrustFile, "what a workflow can get from the token broker"},
		{scaffold.RotationFile, "opens an issue when a credential is overdue: with"},
		{"", `--rotation, or if the policy has "rotate:"`},
	} {
		fmt.Fprintf(&b, "  %-48s %s\n", row[0], row[1])
	}
	return b.String()
}

func (a *app) initCommand() *cobra.Command {
	var f initFlags
	c := &cobra.Command{
		Use:   "init [flags]",
		Short: "Write the files that a project needs: policy, image, lock, workflow",
		Long: `init looks at the project (languages, package managers, devcontainer, remote) and writes what it needs:

` + initTable() + `
Each file is shown before it is written, and asked about; --yes writes all. What is there already stays, unless
--force is given, so that init can be called again at any time.`,
		Example: `  agent-sandbox init --agent claude
  agent-sandbox init --ci-only --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.initProject(cmd.Context(), f) },
	}
	flags := c.Flags()
	flags.StringVar(&f.agent, "agent", "", "agent that works on the project: a `NAME` that \"agent-sandbox agents\" lists")
	flags.StringVar(&f.image, "image", defaultImage, "image to work in, or to build on")
	flags.StringVar(&f.workspace, "workspace", "", "project directory, instead of the one around the current directory")
	flags.BoolVar(&f.ciOnly, "ci-only", false, "only the workflows and the trust policy")
	flags.BoolVar(&f.rotation, "rotation", false, "also the workflow that opens an issue when a credential is overdue")
	flags.BoolVar(&f.noLock, "no-lock", false, "write no lock file, which takes an engine")
	flags.BoolVarP(&f.yes, "yes", "y", false, "write without asking")
	flags.BoolVar(&f.force, "force", false, "overwrite files that are there and differ")
	flags.BoolVar(&f.json, "json", false, "print what was done as JSON")
	_ = c.RegisterFlagCompletionFunc("agent", cobra.FixedCompletions(policy.Agents(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

// actionReference is what workflows use: the major version moves with compatible releases.
const actionReference = "org/agent-sandbox@v1"

// initJSON is `init --json`: a contract, to which fields are only added.
type initJSON struct {
	Project string         `json:"project"`
	Files   []initFileJSON `json:"files"`
	Lock    string         `json:"lock"` // written, same, kept (there was one), skipped, or failed
}

type initFileJSON struct {
	Path   string `json:"path"`
	Action string `json:"action"` // written, overwritten, same, kept (it differs), declined
}

func (a *app) initProject(ctx context.Context, f initFlags) (err error) {
	if !f.yes && !(a.isTerminal(a.stdin) && a.isTerminal(a.stderr)) {
		return usage("there is no terminal to ask before each file\nhint: give --yes")
	}
	project, _, err := a.project(f.workspace)
	if err != nil {
		return err
	}
	found, err := scaffold.Detect(project)
	if err != nil {
		return err
	}
	files, err := scaffold.Files(found, scaffold.Options{
		Image: f.image, Agent: f.agent, Action: actionReference, CIOnly: f.ciOnly, Rotation: f.rotation || a.rotates(project), Release: release(version),
	})
	if err != nil {
		return usage("--agent: %w\nhint: `agent-sandbox agents` lists them", err)
	}
	target, err := scaffold.Open(project)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	out := initJSON{Project: project, Lock: "skipped"}
	for _, file := range files {
		action, err := a.initFile(target, file, f)
		if err != nil {
			return err
		}
		out.Files = append(out.Files, initFileJSON{file.Path, action})
	}
	if !f.ciOnly && !f.noLock {
		if out.Lock, err = a.initLock(ctx, project, f); err != nil {
			return err
		}
	}
	if f.json {
		return a.answerJSON(out)
	}
	return a.initNext(out)
}

// rotates tells whether the project's policy has a credential that is to be replaced on schedule. One that is not right is no matter here.
func (a *app) rotates(project string) bool {
	p, err := a.policy("", project)
	return err == nil && slices.ContainsFunc(p.Credentials, func(c policy.Credential) bool { return c.Rotate != 0 })
}

// releaseVersion is how releases are numbered; git's description of a commit between two of them has more dashes.
var releaseVersion = regexp.MustCompile(`^v?([0-9]+\.[0-9]+\.[0-9]+(?:-[a-z0-9.]+)?)$`)

// release is the tag of the release that a version of this program is; empty if it is none.
func release(version string) string {
	if m := releaseVersion.FindStringSubmatch(version); m != nil && !strings.HasSuffix(version, "-dirty") {
		return "v" + m[1]
	}
	return ""
}

// initFile shows a file and writes it.
func (a *app) initFile(target *scaffold.Target, file scaffold.File, f initFlags) (string, error) {
	state, before, err := target.Compare(file)
	switch {
	case err != nil:
		return "", err
	case state == scaffold.Same:
		return "same", nil
	case state == scaffold.Differs && !f.force:
		return "kept", nil
	}
	if !f.json {
		show := func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "# %s: %s\n%s\n", file.Path, file.About, printableText(unifiedDiff(file.Path, before, file.Content)))
			return err
		}
		if err := a.answer(show); err != nil {
			return "", err
		}
	}
	if !f.yes {
		yes, err := a.ask(fmt.Sprintf("Write %s?", file.Path))
		if err != nil || !yes {
			return "declined", err
		}
	}
	if err := target.Write(file, f.force); err != nil {
		return "", err
	}
	if state == scaffold.Differs {
		return "overwritten", nil
	}
	return "written", nil
}

// initLock writes the lock of the policy that the project has now. A project without an engine or an image is a project all the same, so
// that is said and no failure.
func (a *app) initLock(ctx context.Context, project string, f initFlags) (string, error) {
	if file := filepath.Join(project, image.LockFile); exists(file) && !f.force {
		return "kept", nil
	}
	if !exists(filepath.Join(project, scaffold.PolicyFile)) {
		return "skipped", nil // it was declined
	}
	quiet := *a
	quiet.stdout = a.stderr
	err := quiet.imageLock(ctx, imageFlags{workspace: project, anew: true})
	switch {
	case err == nil:
		return "written", nil
	case ctx.Err() != nil:
		return "", err
	case errors.Is(err, engine.ErrUnavailable), errors.Is(err, engine.ErrNoImage), errors.Is(err, engine.ErrBuild):
		fmt.Fprintf(a.stderr, "agent-sandbox: no lock file yet: %s\nhint: then: agent-sandbox image lock\n", printableLine(err.Error()))
		return "failed", nil
	}
	return "", err
}

// initNext says what was done and what comes next.
func (a *app) initNext(out initJSON) error {
	var b strings.Builder
	for _, file := range out.Files {
		text := file.Action
		if text == "kept" {
			text = "kept: it is there and differs; --force overwrites it"
		}
		fmt.Fprintf(&b, "%-48s %s\n", file.Path, text)
	}
	fmt.Fprintf(&b, "%-48s %s\n", image.LockFile, out.Lock)
	b.WriteString("\nnext: read and commit these files; try `agent-sandbox run -- CMD`, and `agent-sandbox doctor` if it does not start\n")
	return a.answer(func(w io.Writer) error { _, err := io.WriteString(w, b.String()); return err })
}
