package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/event"
)

// runFlags are the flags of run and shell.
type runFlags struct {
	image, policy, workspace, agent string
	ceiling                         string
	caFiles                         []string
	timeout                         time.Duration
	signKey                         string
	tty, dryRun, json, locked       bool
	verbose                         bool
	command                         bool // the arguments are a command, whatever agent the policy names
	task                            bool // they are a task, whatever it looks like
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run [flags] [TASK | -- COMMAND [ARG...]]",
		Short: "Run an agent or a command in the sandbox",
		Long: `run starts an agent or a command in a sandbox of the project: the git repository or the directory
with a policy that the current directory is in. It streams the command's output and ends
with its exit status. What it changed is kept for "diff" and "apply".

With --agent, or with "agent:" in the policy, TASK is what the agent is to do, as one argument; "-" reads it
from standard input. With -t and no task the agent is started for a conversation. Its hosts
and its credential are added to the policy: "agents NAME" shows them. Without --agent, what follows -- is a command,
and gets nothing added.

The command reaches the hosts that the policy's network.allow names, and no others. Where this
machine needs a proxy for that, HTTPS_PROXY, HTTP_PROXY and NO_PROXY say so; the command needs to
know nothing of it.

Exit status: the command's own; 124 when the policy's time limit ended it; 125 when
agent-sandbox failed or refused; 126 and 127 when the command could not be started or was
not found; 2 for wrong usage or an invalid policy.`,
		Example: `  agent-sandbox run --agent claude "fix the failing test"
  agent-sandbox run -- npm test
  agent-sandbox run -t -- bash
  agent-sandbox run --dry-run --json -- make`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.command = cmd.ArgsLenAtDash() == 0
			return a.runTask(cmd.Context(), f, args)
		},
	}
	f.register(c)
	c.Flags().StringVar(&f.agent, "agent", "", "agent to do the task, instead of the policy's: a `NAME` that \"agent-sandbox agents\" lists")
	_ = c.RegisterFlagCompletionFunc("agent", cobra.FixedCompletions(policy.Agents(), cobra.ShellCompDirectiveNoFileComp))
	c.Flags().BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	c.Flags().SetInterspersed(false)
	return c
}

func (a *app) shellCommand() *cobra.Command {
	f := runFlags{tty: true, command: true}
	c := &cobra.Command{
		Use:   "shell [flags]",
		Short: "Look around in the sandbox, in bash or else sh",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.runTask(cmd.Context(), f, policy.ShellOf()) },
	}
	f.register(c)
	return c
}

func (f *runFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.image, "image", "", "image to run, instead of the policy's")
	flags.StringVar(&f.policy, "policy", "", "policy file, instead of the project's "+policyFile)
	flags.StringVar(&f.ceiling, "ceiling", "", "policy file that bounds the project's, such as an organisation's; also from $"+ceilingVariable)
	flags.StringVar(&f.workspace, "workspace", "", "project directory, instead of the one around the current directory")
	flags.StringVar(&f.signKey, "sign-key", "", "private key (PEM) to sign the manifest with, instead of "+signingKeyVariable)
	flags.Var(durationFlag{&f.timeout}, "timeout", "time limit such as 90s, 20m or 1d, if shorter than the policy's")
	flags.BoolVar(&f.locked, "locked", false, "refuse an image that the lock file does not name")
	flags.StringArrayVar(&f.caFiles, "ca-file", nil, "PEM file of certificate authorities to trust beside the system's, such as a company's; repeatable")
	flags.BoolVar(&f.dryRun, "dry-run", false, "decide everything, print the plan, run nothing")
	flags.BoolVar(&f.json, "json", false, "print the result (or the plan) as JSON on stdout; the command's output goes to stderr")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "show each connection and refusal as it happens")
}

// runTask is `run`. Every failure before the task runs has exit status 125, but for what the caller got wrong.
func (a *app) runTask(ctx context.Context, f runFlags, args []string) error {
	cfg, err := a.settled(ctx, f, args)
	if err != nil {
		return failure(err)
	}
	defer cfg.Store.Close()
	if f.dryRun {
		return failure(a.dryRun(ctx, cfg, f))
	}
	stdout := a.stdout
	if f.json {
		stdout = a.stderr
	}
	cfg.Stdout, cfg.Stderr = stdout, a.stderr
	if f.tty {
		restore, err := a.rawTerminal(ctx, &cfg)
		if err != nil {
			return failure(err)
		}
		defer restore()
	}
	result, runErr := a.execute(ctx, cfg, f)
	if f.json {
		if err := writeJSON(a.stdout, result.Summary); err != nil {
			return failure(errors.Join(runErr, err))
		}
	}
	if runErr != nil && !f.json {
		return failure(untold(result.Summary, runErr))
	}
	if runErr != nil {
		return failure(runErr)
	}
	if result.ExitCode != 0 {
		return &statusError{code: result.ExitCode}
	}
	return nil
}

// untold is what the summary on the terminal has not said about a failure: the hint, if the reason was all.
func untold(s event.Summary, err error) error {
	text, hint, hinted := strings.Cut(withHint(err.Error(), err), "\nhint: ")
	switch {
	case s.Reason == "" || !strings.HasPrefix(s.Reason, text):
		return err
	case hinted:
		return &statusError{exitFailure, errors.New("hint: " + hint)}
	}
	return &statusError{code: exitFailure}
}

// execute runs the task under the terminal's eyes.
func (a *app) execute(ctx context.Context, cfg runner.Config, f runFlags) (runner.Result, error) {
	if f.json {
		result, err := runner.Run(ctx, cfg)
		_, attestErr := a.attest(ctx, cfg, result)
		return result, errors.Join(err, attestErr)
	}
	t := &lateTerminal{cfg: event.TerminalConfig{
		W: a.stderr, Terminal: a.isTerminal(a.stderr), Color: a.color(a.stderr), Verbose: f.verbose,
	}}
	cfg.Handlers = append(cfg.Handlers, t)
	result, err := runner.Run(ctx, cfg)
	// What the terminal could not show is in the record.
	_ = t.Close()
	page, attestErr := a.attest(ctx, cfg, result)
	if page != "" {
		fmt.Fprintf(a.stderr, "agent-sandbox: the manifest is stored at %s\n", printableLine(page))
	}
	return result, errors.Join(err, attestErr)
}

// lateTerminal is an event.Terminal that begins with the first event: only that tells the run's id.
type lateTerminal struct {
	cfg      event.TerminalConfig
	terminal *event.Terminal
}

// Handle implements event.Handler: it is never called twice at once.
func (t *lateTerminal) Handle(env event.Envelope) error {
	if t.terminal == nil {
		t.terminal = event.NewTerminal(t.cfg, env.Run)
	}
	return t.terminal.Handle(env)
}

// Close is called when the run is over.
func (t *lateTerminal) Close() error {
	if t.terminal == nil {
		return nil
	}
	return t.terminal.Close()
}

// runConfig gathers what the flags and the environment say.
func (a *app) runConfig(ctx context.Context, f runFlags, args []string) (runner.Config, error) {
	project, sub, err := a.project(f.workspace)
	if err != nil {
		return runner.Config{}, err
	}
	if f.workspace == "" && isHome(project) {
		return runner.Config{}, usage("the project would be your home directory, with your keys and all else that is in it\n" +
			"hint: go to a project's directory, or name one: --workspace DIR")
	}
	p, err := a.policy(f.policy, project)
	if err == nil {
		err = supported(p)
	}
	if err != nil {
		if f.dryRun {
			return runner.Config{}, err
		}
		return runner.Config{}, a.refused(ctx, f, args, project, p, err)
	}
	task, err := a.startOf(f, p, args)
	if err != nil {
		return runner.Config{}, err
	}
	limits, err := a.underCeiling(f.ceiling, task.policy, task.kit)
	if err != nil && !f.dryRun {
		err = a.refused(ctx, f, args, project, p, err)
	}
	if err != nil {
		return runner.Config{}, err
	}
	p = limits.policy
	if f.timeout < 0 || f.timeout > p.Resources.Timeout {
		return runner.Config{}, usage("--timeout: %s is not between 0 and the policy's %s\nhint: raise resources.timeout in the policy", f.timeout, p.Resources.Timeout)
	}
	cas, err := caFiles(f.caFiles)
	if err != nil {
		return runner.Config{}, err
	}
	eng, err := a.engineConfig()
	if err != nil {
		return runner.Config{}, err
	}
	ci, _ := a.lookupEnv("CI")
	inCI := ci != "" && ci != "false" && ci != "0"
	chosen, err := choose(f, p, project, inCI)
	if err != nil {
		return runner.Config{}, err
	}
	cfg := runner.Config{
		Version: version, Argv: task.argv, Kit: task.kit, Stdin: task.input, Project: project, Subdir: sub, Timeout: f.timeout,
		Image: chosen.reference, Obtain: a.buildIfMissing(eng, chosen, f), Lock: chosen.lock,
		Policy: p, Ceiling: limits.ceiling, CeilingDigest: limits.digest(), Narrowed: limits.narrowings, Engine: eng, Watcher: watcher, LookupEnv: a.lookupEnv,
		Proxy: a.proxy(), CAs: cas,
		CI: inCI, Invocation: a.invocation(), Task: task.task, PolicyOrigin: policyOrigin(f.policy, p),
	}
	if err := a.equip(&cfg, f); err != nil {
		return runner.Config{}, err
	}
	return cfg, nil
}

// equip adds what the policy of a run needs of the caller's own: who signs, where credentials come from, where the record and caches go.
func (a *app) equip(cfg *runner.Config, f runFlags) (err error) {
	if cfg.Signer, err = a.signer(cfg.Policy, f.signKey); err != nil {
		return err
	}
	if _, err := a.attestations(cfg.Policy, cfg.Signer); err != nil {
		return err
	}
	if cfg.Credentials, err = a.credentialSources(cfg.Policy, cfg.Project, cfg.CAs); err != nil {
		return err
	}
	if len(cfg.Policy.Caches) > 0 {
		if cfg.CacheOwner, err = a.cacheOwner(); err != nil {
			return err
		}
	}
	cfg.Store, err = a.store()
	return err
}

// proxy is the company's, as the environment names it for every other program.
func (a *app) proxy() egress.Proxy {
	either := func(upper, lower string) string { return cmp.Or(a.env(upper), a.env(lower)) }
	return egress.Proxy{
		HTTPS: either("HTTPS_PROXY", "https_proxy"), HTTP: either("HTTP_PROXY", "http_proxy"), No: either("NO_PROXY", "no_proxy"),
	}
}

// maxCAFile bounds a file of certificates in bytes; the public ones together are a quarter of it.
const maxCAFile = 1 << 20

// caFiles reads what --ca-file names.
func caFiles(names []string) ([][]byte, error) {
	var files [][]byte
	for _, name := range names {
		b, err := readLimited(name, maxCAFile)
		switch {
		case err != nil:
			return nil, usage("--ca-file: %w", err)
		case len(b) > maxCAFile:
			return nil, usage("--ca-file: %s is larger than %d bytes\nhint: give the company's certificates alone", name, maxCAFile)
		case !x509.NewCertPool().AppendCertsFromPEM(b):
			return nil, usage("--ca-file: %s has no certificate\nhint: it must be PEM, with lines such as -----BEGIN CERTIFICATE-----", name)
		}
		files = append(files, b)
	}
	return files, nil
}

// supported refuses a policy that asks for what this version can't do: running it without would be a silent promise.
func supported(p *policy.Policy) error {
	if problems := policy.Unsupported(p, features()); len(problems) > 0 {
		return problems
	}
	return nil
}

// features are the mechanisms that this version has.
func features() policy.Features {
	return policy.Features{Network: true, Agents: true, Credentials: credential.Features(), Rotation: true, Caches: true, ImageBuild: true, Signing: true, Include: true}
}

// dryRun prints the plan.
func (a *app) dryRun(ctx context.Context, cfg runner.Config, f runFlags) error {
	plan, err := runner.DryRun(ctx, cfg)
	if err != nil {
		return err
	}
	if f.json {
		return writeJSON(a.stdout, plan)
	}
	return printPlan(a.stdout, plan)
}

// failure gives err the exit status of a failure of ours, unless it has one.
func failure(err error) error {
	var s *statusError
	var problems policy.Problems
	if err == nil || errors.As(err, &s) || errors.As(err, &problems) {
		return err
	}
	return &statusError{exitFailure, err}
}

// writeJSON prints v for machines.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// readLimited reads a file of at most limit bytes and the first one beyond, so that whoever parses it can tell. A pipe is read to its end, as a
// shell's <(command) is; one that nobody writes to is no file, and is not waited for.
func readLimited(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1)) // an *os.File's error names it
	if err != nil || len(b) > 0 {
		return b, err
	}
	if info, err := f.Stat(); err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
		return b, err
	}
	return nil, fmt.Errorf("%s is a pipe, and nobody writes to it\nhint: put a file in its place", displayPath(name))
}
