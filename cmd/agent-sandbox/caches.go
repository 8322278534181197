package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
)

// cachesFlags are the flags of caches and caches prune.
type cachesFlags struct {
	workspace, larger string
	all, dryRun, json bool
}

func (f *cachesFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.workspace, "workspace", "", "only those of this project directory")
	c.Flags().BoolVar(&f.all, "all", false, "also those of other users of the engine, and of CI jobs")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
}

func (a *app) cachesCommand() *cobra.Command {
	var f cachesFlags
	c := &cobra.Command{
		Use:   "caches",
		Short: "List the caches that are kept between runs",
		Long: `caches lists the engine's volumes that a policy with "caches: [npm, go, pip, cargo]" keeps between the
runs of a project: one for each project and kind, which no other project gets to see. In a CI job it is one for
each repository, ref and kind, so that what a pull request leaves there is found by that pull request alone.

Only sandboxes see what is in them. But what one run leaves, the next run of the project finds: an agent can
leave something bad there as it can in the project itself, and there is no review in between. "caches prune" is the
way to begin anew.`,
		Example: `  agent-sandbox caches
  agent-sandbox caches prune --workspace .`,
		Args: groupArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listCaches(cmd.Context(), f) },
	}
	f.register(c)
	c.AddCommand(a.cachesPruneCommand())
	return c
}

func (a *app) cachesPruneCommand() *cobra.Command {
	var f cachesFlags
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove caches that no run is using",
		Long: `prune removes the volumes that "caches" lists, but for those that a container uses. It removes no other
volume, whatever its name.

Caches grow with every version of a package that is fetched, and nothing makes them smaller by itself. With --larger-than
only those go that have outgrown it, such as in a job of every night: their next run fetches what it needs anew.`,
		Example: `  agent-sandbox caches prune --dry-run
  agent-sandbox caches prune --larger-than 5GiB
  agent-sandbox caches prune --workspace .`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.pruneCaches(cmd.Context(), f) },
	}
	f.register(c)
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say which would go, and remove nothing")
	c.Flags().StringVar(&f.larger, "larger-than", "", "only those that are larger than this `SIZE`, such as 5GiB")
	return c
}

// outgrown tells which caches are larger than the flag says; without the flag all are.
func (f cachesFlags) outgrown() (func(engine.CacheState) (bool, error), error) {
	if f.larger == "" {
		return func(engine.CacheState) (bool, error) { return true, nil }, nil
	}
	limit, err := policy.ParseBytes(f.larger)
	if err != nil {
		return nil, usage("--larger-than: %w", err)
	}
	return func(s engine.CacheState) (bool, error) {
		if s.Bytes < 0 {
			return false, fmt.Errorf("%s stays: the engine does not tell how large it is", s.Volume)
		}
		return s.Bytes > int64(limit), nil
	}, nil
}

// withCaches calls f with the caches that the flags mean, sorted by project and kind.
func (a *app) withCaches(ctx context.Context, f cachesFlags, measure bool, do func(*engine.Engine, []engine.CacheState) error) (err error) {
	cfg, err := a.engineConfig()
	if err != nil {
		return err
	}
	e, err := engine.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	list, err := e.Caches(ctx, measure)
	if err != nil {
		return err
	}
	keep, err := a.meansCache(f)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(s engine.CacheState) bool { return !keep(s.Cache) })
	slices.SortFunc(list, func(x, y engine.CacheState) int {
		return slices.Compare([]string{x.Project, x.Kind, x.Volume}, []string{y.Project, y.Kind, y.Volume})
	})
	return do(e, list)
}

// meansCache tells which caches the flags mean.
func (a *app) meansCache(f cachesFlags) (func(engine.Cache) bool, error) {
	owner, err := a.readCacheOwner()
	if err != nil {
		return nil, err
	}
	project := ""
	if f.workspace != "" {
		if project, _, err = a.project(f.workspace); err != nil {
			return nil, err
		}
		project = event.Printable(runner.CacheProject(project)) // as it is labelled
	}
	return func(c engine.Cache) bool {
		return (f.all || owner != "" && c.Owner == owner) && (project == "" || c.Project == project)
	}, nil
}

// listCaches is `caches`; its JSON is a contract, to which fields are only added.
func (a *app) listCaches(ctx context.Context, f cachesFlags) error {
	return a.withCaches(ctx, f, true, func(_ *engine.Engine, list []engine.CacheState) error {
		if f.json {
			return a.answerJSON(append([]engine.CacheState{}, list...))
		}
		if len(list) == 0 {
			fmt.Fprintln(a.stderr, "agent-sandbox: there are no caches; `caches: [npm, go]` in a policy keeps some")
			return nil
		}
		return a.answer(func(out io.Writer) error {
			w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "PROJECT\tKIND\tSIZE\tUSED\tVOLUME")
			for _, s := range list {
				size, used := "?", "no"
				if s.Bytes >= 0 {
					size = engine.ByteSize(s.Bytes)
				}
				if s.Used {
					used = "now"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printableLine(s.Project), printableLine(s.Kind), size, used, printableLine(s.Volume))
			}
			return w.Flush()
		})
	})
}

// prunedCaches is `caches prune --json`: a contract, to which fields are only added.
type prunedCaches struct {
	Removed []engine.Cache `json:"removed"`
	Left    []engine.Cache `json:"left"` // since a container uses them
}

func (a *app) pruneCaches(ctx context.Context, f cachesFlags) error {
	report := prunedCaches{[]engine.Cache{}, []engine.Cache{}}
	var errs []error
	outgrown, err := f.outgrown()
	if err != nil {
		return err
	}
	err = a.withCaches(ctx, f, f.larger != "", func(e *engine.Engine, list []engine.CacheState) error {
		for _, s := range list {
			goes, err := outgrown(s)
			if err == nil && !goes {
				continue
			}
			if err == nil && !f.dryRun {
				err = e.RemoveCache(ctx, s.Cache)
			}
			switch {
			case err == nil:
				report.Removed = append(report.Removed, s.Cache)
			case errors.Is(err, engine.ErrVolumeUsed):
				report.Left = append(report.Left, s.Cache)
			default:
				errs = append(errs, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if f.json {
		return errors.Join(append(errs, a.answerJSON(report))...)
	}
	if len(report.Removed)+len(report.Left)+len(errs) == 0 {
		fmt.Fprintln(a.stderr, "agent-sandbox: there is no such cache: nothing is to be removed")
	}
	word := "removed"
	if f.dryRun {
		word = "would be removed"
	}
	return errors.Join(append(errs, a.answer(func(w io.Writer) error {
		for _, c := range report.Removed {
			fmt.Fprintf(w, "%s %s: %s of %s\n", c.Volume, word, printableLine(c.Kind), printableLine(c.Project))
		}
		for _, c := range report.Left {
			fmt.Fprintf(w, "%s is in use, and stays: %s of %s\n", c.Volume, printableLine(c.Kind), printableLine(c.Project))
		}
		return nil
	}))...)
}

// cacheOwnerFile has an id of this state directory: two users of one engine may have projects with the same path.
const cacheOwnerFile = "cache-owner"

func (a *app) cacheOwnerPath() (string, error) {
	state, err := a.dir("XDG_STATE_HOME", ".local", "state")
	return filepath.Join(state, cacheOwnerFile), err
}

// readCacheOwner is empty as long as no run had caches.
func (a *app) readCacheOwner() (string, error) {
	name, err := a.cacheOwnerPath()
	if err != nil {
		return "", err
	}
	b, err := readLimited(name, 100)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	owner := strings.TrimSuffix(string(b), "\n")
	if raw, err := hex.DecodeString(owner); err != nil || len(raw) != 16 {
		return "", fmt.Errorf("%s does not have the 32 hexadecimal digits that it should\nhint: remove it; caches that were kept under it are then left to `agent-sandbox caches prune --all`", name)
	}
	return owner, nil
}

// cacheOwner is this state directory's id, made when it is first asked for.
func (a *app) cacheOwner() (string, error) {
	if owner, err := a.readCacheOwner(); owner != "" || err != nil {
		return owner, err
	}
	name, err := a.cacheOwnerPath()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return "", err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	// Two first runs at once must come to one id: the file appears whole, and only once.
	tmp, err := os.CreateTemp(filepath.Dir(name), ".cache-owner-*")
	if err != nil {
		return "", err
	}
	_, err = tmp.WriteString(hex.EncodeToString(id) + "\n")
	if err = errors.Join(err, tmp.Close()); err == nil {
		if err = os.Link(tmp.Name(), name); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	if err := errors.Join(err, os.Remove(tmp.Name())); err != nil {
		return "", err
	}
	return a.readCacheOwner()
}
