package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/image"
)

// imageFlags are the flags of the commands that build.
type imageFlags struct {
	policy, workspace string
	file, target      string // empty: the policy's
	sbom              string
	args, caFiles     []string
	agents            []string // kits to install
	noCache, offline  bool
	pull              bool
	json, verbose     bool
	anew              bool // a lock file that can't be used is no obstacle
}

func (a *app) imageCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "Build the image that agents work in, lock it, and prove that it can be rebuilt",
		Args:  groupArgs,
		RunE:  showHelp,
	}
	c.AddCommand(a.imageBuildCommand(), a.imageLockCommand(), a.imageVerifyCommand())
	return c
}

func (f *imageFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.policy, "policy", "", "policy file, instead of the project's "+policyFile)
	flags.StringVar(&f.workspace, "workspace", "", "project directory, instead of the one around the current directory")
	flags.StringArrayVar(&f.caFiles, "ca-file", nil, "PEM file of certificate authorities to trust during the build; they are not in the image; repeatable")
	flags.BoolVar(&f.offline, "offline", false, "give the build's commands no network; the lock keeps that, and rebuilds hold to it")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "show all output of the build")
	flags.BoolVar(&f.json, "json", false, "print JSON")
}

func (f *imageFlags) registerArgs(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.args, "build-arg", nil, "NAME=VALUE for an ARG of the Dockerfile, instead of the lock file's; it is recorded, so no secrets; repeatable")
	c.Flags().BoolVar(&f.noCache, "no-cache", false, "build every step anew")
}

func (a *app) imageBuildCommand() *cobra.Command {
	var f imageFlags
	c := &cobra.Command{
		Use:   "build [flags]",
		Short: "Build a Dockerfile so that the same inputs give the same digest",
		Long: `build has the engine build a Dockerfile and rewrites the result: what the build put on top of its
base becomes one layer, in order, with one date for all files; caches, logs, random ids, stubs of
the engine and the history go. So two builds of the same inputs have the same digest, on any
engine, with BuildKit or without.

Built is what the policy's image says, or --file: a Dockerfile, whose directory is the context, or a
devcontainer.json, of which the section "build" or "image" is read. Of the context only the files
that the Dockerfile copies are sent and count as inputs; .dockerignore is kept to, .git and what the
policy hides from agents are never in it. Modes are git's: executable or not.

The agents of the policy's image.agents, and of --agent, are installed on top, below /opt/agents, by
npm from lock files with integrity hashes that this program has; scripts of packages are not run.
npm itself does not stay in the image, nor does it have to be there where the base has apt-get; a
base without Node gets one. These are ` + strings.Join(policy.Installable(), ", ") + `. With neither
Dockerfile nor image in the policy the agent that it names is put on the program's own image.
"run" finds what was built by itself; with --agent or --file it takes it as "run --image NAME".

The date is SOURCE_DATE_EPOCH if that is set, else the base image's. DOCKER_BUILDKIT=0 or 1
chooses the engine's builder. A base that the engine lacks is pulled.`,
		Example: `  agent-sandbox image build
  agent-sandbox image build --file .devcontainer/Dockerfile --sbom packages.json
  agent-sandbox image build --agent claude --agent codex`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.imageBuild(cmd.Context(), f) },
	}
	f.register(c)
	f.registerArgs(c)
	c.Flags().StringVar(&f.file, "file", "", "Dockerfile or devcontainer.json, instead of the policy's image.build")
	c.Flags().StringVar(&f.target, "target", "", "stage of the Dockerfile to build, instead of the policy's or the last")
	c.Flags().StringVar(&f.sbom, "sbom", "", "write the list of packages in the image to this file (CycloneDX JSON)")
	c.Flags().StringArrayVar(&f.agents, "agent", nil, "install the agent of this kit on top, at the kit's version; without --file beside the policy's; repeatable")
	return c
}

// builtJSON is `image build --json`: a contract, to which fields are only added.
type builtJSON struct {
	Name     string       `json:"name"`
	ID       string       `json:"id"`
	Digest   string       `json:"digest"`
	Platform string       `json:"platform"`
	Inputs   string       `json:"inputs"`
	Bases    []image.Base `json:"bases"`
	SBOM     string       `json:"sbom"`
	Packages int          `json:"packages"`
	Locked   *bool        `json:"locked,omitempty"` // whether it is the image that the lock names; absent without an entry
}

// imageJob is what the image commands need.
type imageJob struct {
	project  string
	policy   *policy.Policy
	lockFile string
	lock     *image.Lock
	builder  *image.Builder
	engine   *engine.Engine
	progress *buildProgress
}

// job gathers it; close must be called.
func (a *app) job(ctx context.Context, f imageFlags) (*imageJob, error) {
	project, _, err := a.project(f.workspace)
	if err != nil {
		return nil, err
	}
	p, err := a.policy(f.policy, project)
	if err != nil {
		return nil, err
	}
	j := &imageJob{project: project, policy: p, lockFile: lockFileFor(f.policy, project)}
	var wrong *image.LockError
	j.lock, err = readLock(j.lockFile)
	if f.anew && errors.As(err, &wrong) {
		fmt.Fprintf(a.stderr, "agent-sandbox: note: the lock file is written anew: %s\n", printableLine(wrong.Message))
		j.lock, err = new(image.Lock), nil
	}
	if err != nil {
		return nil, err
	}
	j.lock.Version = image.LockVersion
	cfg, err := a.engineConfig()
	if err != nil {
		return nil, err
	}
	if j.engine, err = engine.Connect(ctx, cfg); err != nil {
		return nil, err
	}
	if j.builder, j.progress, err = a.builder(ctx, j.engine, cfg.CacheDir, f); err != nil {
		return nil, errors.Join(err, j.engine.Close())
	}
	return j, nil
}

func (j *imageJob) close() error { return j.engine.Close() }

// builder is for images that the flags describe.
func (a *app) builder(ctx context.Context, e *engine.Engine, cache string, f imageFlags) (*image.Builder, *buildProgress, error) {
	cas, err := caFiles(f.caFiles)
	if err != nil {
		return nil, nil, err
	}
	b := &image.Builder{Engine: e, NoCache: f.noCache, Offline: f.offline, Pull: true, Dir: filepath.Join(cache, "build"), CA: slices.Concat(cas...)}
	if len(b.CA) > 0 {
		b.System = systemCertificates()
	}
	if err := os.MkdirAll(b.Dir, 0o700); err != nil {
		return nil, nil, err
	}
	if text := a.env("SOURCE_DATE_EPOCH"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil || seconds <= 0 {
			return nil, nil, usage("SOURCE_DATE_EPOCH: %q is not a number of seconds since 1970", text)
		}
		b.Epoch = time.Unix(seconds, 0)
	}
	switch text := a.env("DOCKER_BUILDKIT"); text {
	case "":
		if b.BuildKit, err = e.PrefersBuildKit(ctx); err != nil {
			return nil, nil, err
		}
	default:
		if b.BuildKit, err = strconv.ParseBool(text); err != nil {
			return nil, nil, usage("DOCKER_BUILDKIT: %q is neither 0 nor 1", text)
		}
	}
	progress := &buildProgress{w: a.stderr, terminal: a.isTerminal(a.stderr), verbose: f.verbose}
	b.Line = progress.line
	return b, progress, nil
}

// systemCertificates are what this machine trusts, from where the distributions have it; nil if that is elsewhere.
func systemCertificates() []byte {
	for _, name := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
		if b, err := readLimited(name, maxCAFile); err == nil && len(b) <= maxCAFile {
			return b
		}
	}
	return nil
}

// source is what flags and policy want built, and what the lock calls it.
func (j *imageJob) source(w wish, f imageFlags) (src image.Source, err error) {
	if src, err = w.source(j.policy, j.project, j.lock); err != nil || len(f.args) == 0 {
		return src, err
	}
	if isDevcontainer(w.file) {
		return src, usage("--build-arg: the arguments are those of %s\nhint: put it there, under build.args", filepath.ToSlash(w.file))
	}
	src.Args = map[string]string{}
	for _, arg := range f.args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return src, usage("--build-arg: %q is not NAME=VALUE", arg)
		}
		src.Args[name] = value
	}
	return src, nil
}

func (a *app) imageBuild(ctx context.Context, f imageFlags) (err error) {
	j, err := a.job(ctx, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	w, err := wishOf(j.policy).with(f)
	if err != nil {
		return err
	}
	src, err := j.source(w, f)
	if err != nil {
		return err
	}
	_, r, err := j.build(ctx, src)
	if err != nil {
		return err
	}
	if f.sbom != "" {
		if err := os.WriteFile(f.sbom, r.SBOM.JSON(), 0o644); err != nil {
			return err
		}
	}
	out := builtJSON{
		Name: r.Name, ID: r.ID, Digest: r.Digest, Platform: "linux/" + r.Arch, Inputs: r.Inputs,
		Bases: append([]image.Base{}, r.Bases...), SBOM: r.SBOM.Digest(), Packages: len(r.SBOM.Components),
	}
	if e, ok := j.lock.Images[w.key(j.project)]; ok {
		locked := e.Digest == r.Digest
		out.Locked = &locked
		if !locked {
			fmt.Fprintf(a.stderr, "agent-sandbox: note: it is not the image that %s names, which is %s\n"+
				"hint: `agent-sandbox image verify` tells why; `agent-sandbox image lock` accepts it\n", displayPath(j.lockFile), e.Digest)
		}
	}
	if f.json {
		return a.answerJSON(out)
	}
	return a.answer(func(w io.Writer) error { _, err := fmt.Fprintf(w, "%s %s\n", out.Name, out.Digest); return err })
}

// build builds, and shows how it goes on. The inputs are closed, and good for their digests.
func (j *imageJob) build(ctx context.Context, src image.Source) (*image.Inputs, *image.Result, error) {
	in, err := image.ReadInputs(src)
	if err != nil {
		return nil, nil, err
	}
	defer in.Close()
	r, err := j.builder.Build(ctx, in)
	j.progress.end(err)
	return in, r, err
}
