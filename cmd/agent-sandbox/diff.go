package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// diffFlags are the flags of diff.
type diffFlags struct{ stat, json bool }

func (a *app) diffCommand() *cobra.Command {
	var f diffFlags
	c := &cobra.Command{
		Use:   "diff RUN [PATH...]",
		Short: "Show what a run changed",
		Long: `diff shows what a run changed: on a terminal in colour, made safe to show, and through the
pager that git would use (GIT_PAGER, PAGER, less). In a pipe or a file it is the patch, byte
for byte, as "git apply" takes it.

PATH limits it to files and directories of the project. Inside the project they are relative
to the current directory, elsewhere to the project.

A patch can't say everything: directories, modes and what is inside .git are in the notes
at its end, and in --json, which prints the whole change set.`,
		Example: `  agent-sandbox diff last
  agent-sandbox diff last --stat
  agent-sandbox diff last src >src.patch`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeRuns(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.withRun(args[0], func(r *runs.Run) error { return a.diff(r, args[1:], f) })
		},
	}
	c.Flags().BoolVar(&f.stat, "stat", false, "one line per file, and a sum")
	c.Flags().BoolVar(&f.json, "json", false, "print the change set as JSON")
	c.MarkFlagsMutuallyExclusive("stat", "json")
	return c
}

func (a *app) diff(r *runs.Run, args []string, f diffFlags) error {
	cs, err := changeSet(r)
	if err != nil {
		return err
	}
	if f.json {
		if len(args) > 0 {
			return usage("--json prints the whole change set\nhint: leave out the paths, and select from .changes")
		}
		return a.answerJSON(cs)
	}
	paths, err := projectPaths(cs.Base, args)
	if err != nil {
		return err
	}
	if len(cs.Changes) == 0 {
		fmt.Fprintf(a.stderr, "agent-sandbox: run %s changed nothing\n", r.ID)
		return nil
	}
	opts := workspace.DiffOptions{
		RunDir: r.Dir(), Paths: paths, Stat: f.stat, Terminal: a.onScreen(a.stdout), Color: a.color(a.stdout),
	}
	if opts.Terminal {
		opts.Width = int(terminalSize(int(a.stdout.Fd())).Cols)
	}
	err = a.page(func(w io.Writer) error { return workspace.Diff(w, cs, opts) })
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("run %s has no patch: %w\nhint: --json prints the change set", r.ID, err)
	}
	if err == nil && !opts.Terminal {
		a.noteIncomplete(cs)
	}
	return err
}

// noteIncomplete tells whoever saves the patch what is not in it. On a terminal the notes are part of the output.
func (a *app) noteIncomplete(cs *workspace.ChangeSet) {
	n := cs.Counts()
	var parts []string
	omitted := 0
	for _, c := range cs.Changes {
		if c.Omitted != "" {
			omitted++
		}
	}
	if omitted > 0 {
		parts = append(parts, plural(omitted, "file")+" left out")
	}
	if n.Git > 0 {
		parts = append(parts, plural(n.Git, "change")+" inside .git")
	}
	if len(parts) > 0 {
		fmt.Fprintf(a.stderr, "agent-sandbox: not in the patch: %s; --json has everything\n", strings.Join(parts, ", "))
	}
}

// projectPaths turns what the caller named into paths of the project: slash-separated and relative to it. Like git, it
// reads them relative to the current directory when that is inside the project. No arguments are no limit: nil.
func projectPaths(project string, args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	here := project
	if wd, err := os.Getwd(); err == nil {
		if wd, err := filepath.EvalSymlinks(wd); err == nil && inside(project, wd) {
			here = wd
		}
	}
	paths := make([]string, len(args))
	for i, arg := range args {
		full := arg
		if !filepath.IsAbs(arg) {
			full = filepath.Join(here, arg)
		}
		rel, err := filepath.Rel(project, full)
		if err != nil || !inside(project, full) {
			return nil, usage("%s is outside of the project %s\nhint: name paths of the project", arg, project)
		}
		paths[i] = filepath.ToSlash(rel)
	}
	return paths, nil
}

// inside reports whether path is dir or below it; both are absolute.
func inside(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
