package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

func (a *app) actionCommand() *cobra.Command {
	var post bool
	var eventFile string
	given := map[string]*string{}
	c := &cobra.Command{
		Use:   "action",
		Short: "Run a task as a step of a GitHub Actions workflow",
		Long: `action is what "uses: org/agent-sandbox" runs, in a container of its own beside the agent's. Its
inputs come from the INPUT_* variables of a step. Flags of the same names go before them, and --event names
the payload of an event: with these the step can be tried outside of a workflow.`,
		Example: `  agent-sandbox action --command "npm test" --event pull_request.json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if post {
				return a.actionPost(cmd.Context())
			}
			values := actions.InputsFromEnv(os.Environ())
			for name, value := range given {
				if cmd.Flags().Changed(name) {
					values[name] = *value
				}
			}
			return a.action(cmd.Context(), values, eventFile)
		},
	}
	c.Flags().BoolVar(&post, "post", false, "what comes after the job: remove what a killed step left in the engine")
	c.Flags().StringVar(&eventFile, "event", "", "payload of the event, as JSON in a `FILE`")
	for _, in := range actions.InputTable() {
		given[in.Name] = c.Flags().String(in.Name, "", "the input "+in.Name)
	}
	return c
}

// step is one step of a workflow.
type step struct {
	app    *app
	job    *actions.Job
	in     actions.Inputs
	log    *actions.Log
	report actions.Report
	temp   string            // a directory for this process alone
	record string            // the directory of the run's record
	saved  map[string]string // so far, for act
}

// action is the step. What goes wrong is told as an annotation, in the log that the runner reads.
func (a *app) action(ctx context.Context, values map[string]string, eventFile string) error {
	s := &step{app: a, log: actions.NewLog(a.stdout)}
	err := s.run(ctx, values, eventFile)
	s.log.EndGroup()
	s.log.Resume()
	if err == nil {
		return s.log.Err()
	}
	if text := err.Error(); text != "" {
		s.log.Annotate(actions.Annotation{Level: actions.Error, Title: "agent-sandbox", Text: withHint(text, err)})
	}
	return &statusError{code: exitError}
}

func (s *step) run(ctx context.Context, values map[string]string, eventFile string) (err error) {
	if s.job, err = actions.FromEnv(s.app.lookupEnv); err != nil {
		return err
	}
	if eventFile != "" {
		if err := s.job.ReadEvent(eventFile); err != nil {
			return err
		}
	}
	s.mask()
	if s.in, err = actions.ParseInputs(values); err != nil {
		return err
	}
	if want := s.in.Version; want != "" && strings.TrimPrefix(want, "v") != strings.TrimPrefix(version, "v") {
		return fmt.Errorf("the workflow wants version %s of agent-sandbox, and this is %s", s.in.Version, version)
	}
	if s.temp, err = os.MkdirTemp("", "agent-sandbox-action-*"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.temp)) }()
	if s.record, err = s.recordHome(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.record)) }()
	s.log.Group("Preparing the sandbox")
	cfg, err := s.config(ctx)
	if err != nil {
		return s.refused(ctx, err)
	}
	defer cfg.Store.Close()
	if s.in.DryRun {
		return s.dryRun(ctx, cfg)
	}
	if err := s.saveProof(cfg.Policy); err != nil {
		return err
	}
	cfg.Stdout, cfg.Stderr = s.log.Agent(), s.log.Agent()
	cfg.Handlers = append(cfg.Handlers, &stepEvents{step: s})
	result, runErr := runner.Run(ctx, cfg)
	page, attestErr := s.app.attest(ctx, cfg, result)
	runErr = errors.Join(runErr, attestErr)
	s.log.Resume()
	s.log.EndGroup()
	s.log.Group("Result")
	if page != "" {
		s.log.Printf("the manifest is stored at %s", page)
	}
	for line := range strings.Lines(result.Summary.Verdict(false)) {
		s.log.Printf("%s", strings.TrimSuffix(line, "\n"))
	}
	return s.finish(ctx, cfg, result, runErr)
}

// mask has the runner take what is secret out of everything that it shows.
func (s *step) mask() {
	for _, v := range s.job.Secrets() {
		s.log.Mask(v)
	}
	for _, name := range []string{attestationsVariable, signingKeyVariable, signingPassphraseVariable} {
		s.log.Mask(secret.New(s.app.env(name)))
	}
}

// inner is the program as the step uses it: in CI, whatever the workflow made of that variable, and with a state of its own.
func (s *step) inner() *app {
	a := *s.app
	a.stdin = nil
	lookup := s.app.lookupEnv
	a.lookupEnv = func(name string) (string, bool) {
		switch name {
		case "CI":
			return "true", true
		case "XDG_STATE_HOME":
			return s.record, true
		}
		return lookup(name)
	}
	return &a
}

// config is what the inputs and the job say about the run.
func (s *step) config(ctx context.Context) (runner.Config, error) {
	a := s.inner()
	project, dir, err := s.project()
	if err != nil {
		return runner.Config{}, err
	}
	if err := actions.CheckCheckout(project); err != nil {
		return runner.Config{}, err
	}
	f := runFlags{
		workspace: project, image: s.in.Image, agent: s.in.Agent, timeout: s.in.Timeout,
		command: s.in.Command != "", task: s.in.Command == "", locked: s.in.Image == "",
	}
	if f.policy, f.ceiling, err = s.rules(ctx, project); err != nil {
		return runner.Config{}, err
	}
	args, err := s.arguments()
	if err != nil {
		return runner.Config{}, err
	}
	cfg, err := a.settled(ctx, f, args)
	if err != nil {
		return cfg, err
	}
	cfg.Subdir, cfg.Stdin = dir, stdinOf(f, cfg.Stdin)
	judged, err := s.judged(ctx, cfg.Policy)
	if err == nil {
		cfg.Policy = judged
		err = s.rights(a, &cfg)
	}
	if cfg.Obtain == nil && !cfg.Lock.Build {
		cfg.Obtain = func(ctx context.Context) error { return s.pull(ctx, cfg.Engine, cfg.Image) }
	}
	if err != nil {
		return cfg, errors.Join(s.mayNot(ctx, a, cfg, err), cfg.Store.Close())
	}
	return cfg, nil
}

// stdinOf keeps a command from the step's own standard input, which is nobody's. An agent may get its task there.
func stdinOf(f runFlags, task io.Reader) io.Reader {
	if f.command {
		return nil
	}
	return task
}

// under is the path of an input that names a file of the workspace.
func (s *step) under(name string) string {
	if name == "" {
		return ""
	}
	return filepath.Join(s.job.Workspace, filepath.FromSlash(name))
}

// project finds the repository that the step works on, and the directory in it.
func (s *step) project() (project, dir string, err error) {
	if s.job.Workspace == "" {
		if s.job.Workspace, err = os.Getwd(); err != nil {
			return "", "", err
		}
	}
	here := s.under(s.in.Directory)
	if here == "" {
		here = s.job.Workspace
	}
	if st, err := os.Stat(here); err != nil || !st.IsDir() {
		return "", "", fmt.Errorf("there is no directory %s\nhint: check the repository out first, with actions/checkout; working-directory is below that", here)
	}
	project = here
	for at := here; ; at = filepath.Dir(at) {
		if exists(filepath.Join(at, policyFile)) || exists(filepath.Join(at, ".git")) {
			project = at
			break
		}
		if at == s.job.Workspace || at == filepath.Dir(at) {
			break
		}
	}
	rel, err := filepath.Rel(project, here)
	if rel == "." {
		rel = ""
	}
	return project, filepath.ToSlash(rel), err
}

// arguments are those of `run`.
func (s *step) arguments() ([]string, error) {
	switch {
	case s.in.Command != "":
		return []string{"bash", "-euo", "pipefail", "-c", s.in.Command}, nil
	case s.in.PromptFile != "":
		root, err := os.OpenRoot(s.job.Workspace)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		f, err := root.Open(s.in.PromptFile)
		if err != nil {
			return nil, fmt.Errorf("prompt-file: %w", err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxTask+1))
		return []string{string(b)}, err
	}
	return []string{s.in.Task}, nil
}

// pull has the engine get the image, which a fresh machine does not have. The run compares it with the lock.
func (s *step) pull(ctx context.Context, cfg engine.Config, reference string) (err error) {
	e, err := engine.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if _, err = e.Image(ctx, reference); !errors.Is(err, engine.ErrNoImage) {
		return err
	}
	s.log.Printf("pulling %s", reference)
	return e.Pull(ctx, reference, func(string) {})
}

func (s *step) dryRun(ctx context.Context, cfg runner.Config) error {
	plan, err := runner.DryRun(ctx, cfg)
	if err != nil {
		return err
	}
	var b strings.Builder
	if err := printPlan(&b, plan); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		s.log.Printf("%s", strings.TrimSuffix(line, "\n"))
	}
	return nil
}

// stepEvents shows a run in the log, and notes its id for the step that comes after the job.
type stepEvents struct{ step *step }

// Handle implements event.Handler.
func (e *stepEvents) Handle(env event.Envelope) error {
	s := e.step
	switch data := env.Data.(type) {
	case event.RunStarted:
		return s.save(stateRun, env.Run)
	case event.AgentStarted:
		s.log.Group("The agent's output")
	case event.Lowered:
		s.log.Printf("lowered: %s: %s", data.What, data.Why)
	case event.Warning:
		s.log.Printf("warning: %s", data.Message)
	}
	return nil
}
