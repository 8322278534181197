package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/runs"
)

func (a *app) manifestCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "manifest",
		Short: "The evidence that every run leaves",
		Long: `manifest is about manifest.json, the evidence of a run: an in-toto statement of what was
allowed, tried and changed. docs/manifest.md describes each field.`,
		Args: groupArgs,
		RunE: showHelp,
	}
	c.AddCommand(a.manifestShowCommand(), a.manifestVerifyCommand(), a.manifestKeygenCommand(), a.manifestSchemaCommand(), a.manifestControlsCommand())
	return c
}

func (a *app) manifestShowCommand() *cobra.Command {
	var asJSON, markdown bool
	c := &cobra.Command{
		Use:   "show [RUN | FILE]",
		Short: "Show a manifest on one page",
		Long: `show prints what ran, where, with which rights, what it reached and what it changed, from the
manifest of a run (the newest one, if none is named) or from a file. It does not check a signature.`,
		Example: `  agent-sandbox manifest show
  agent-sandbox manifest show manifest.json --markdown
  agent-sandbox manifest show last --json | jq .predicate.egress`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeRuns(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := "last"
			if len(args) == 1 {
				name = args[0]
			}
			f, err := a.readManifest(name)
			if err != nil {
				return err
			}
			return a.showManifest(f, asJSON, markdown)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the statement as JSON")
	c.Flags().BoolVar(&markdown, "markdown", false, "print Markdown")
	c.MarkFlagsMutuallyExclusive("json", "markdown")
	return c
}

// readManifest reads that of a run, or a file if the name is one.
func (a *app) readManifest(name string) (f manifest.File, err error) {
	err = a.withManifest(name, func(where string, content []byte, beside fs.FS) error {
		f, err = manifest.Read(content)
		f.Why = manifest.WhyUnsigned(beside, content)
		return named(where, err)
	})
	return f, err
}

// withManifest calls f with the manifest of a run, or a file if the name is one, and the directory that it is in.
func (a *app) withManifest(name string, f func(where string, content []byte, beside fs.FS) error) error {
	if strings.ContainsAny(name, `/\.`) || exists(name) {
		content, err := readLimited(name, manifest.MaxFile)
		if err != nil {
			return err
		}
		return f(name, content, os.DirFS(filepath.Dir(name)))
	}
	return a.withRun(name, func(r *runs.Run) error {
		file, err := r.Open(runs.ManifestFile)
		if errors.Is(err, runs.ErrNotFound) {
			return noManifest(r)
		}
		if err != nil {
			return err
		}
		defer file.Close()
		content, err := io.ReadAll(io.LimitReader(file, manifest.MaxFile+1))
		if err != nil {
			return err
		}
		files, err := r.FS()
		if err != nil {
			return err
		}
		return f(r.Path(runs.ManifestFile), content, files)
	})
}

func named(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

func noManifest(r *runs.Run) error {
	state, err := r.State()
	if err != nil {
		return err
	}
	if state == runs.Running {
		return fmt.Errorf("run %s has no manifest yet: it is still running", r.ID)
	}
	return fmt.Errorf("run %s has no manifest: an older version of agent-sandbox ran it, or it was removed", r.ID)
}

func (a *app) showManifest(f manifest.File, asJSON, markdown bool) error {
	switch {
	case asJSON:
		return a.answerJSON(f.Statement)
	case markdown:
		return a.answer(func(w io.Writer) error { return manifest.Markdown(w, f) })
	}
	return a.answer(func(w io.Writer) error {
		p := newPage(painter(a.color(a.stdout)))
		p.manifest(f)
		_, err := io.WriteString(w, p.String())
		return err
	})
}

// manifest writes the same sections as Markdown has.
func (p *page) manifest(f manifest.File) {
	verdict, good := manifest.Verdict(f.Statement.Predicate)
	colour := red
	if good {
		colour = green
	}
	fmt.Fprintf(p, "%s\n", p.paint.paint(bold, "run "+event.Printable(f.Statement.Predicate.Run)))
	fmt.Fprintf(p, "%s\n", p.paint.paint(colour, event.Printable(verdict)))
	for _, s := range manifest.Sections(f) {
		p.section(s.Title)
		for _, r := range s.Rows {
			p.row(r.Label, "%s", r.Text)
		}
	}
}

func (a *app) manifestSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of a manifest's statement",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.answer(func(w io.Writer) error { _, err := w.Write(manifest.Schema()); return err })
		},
	}
}

func (a *app) manifestControlsCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "controls",
		Short: "Print which controls a manifest supports evidence for",
		Long: `controls lists the fields of a manifest, and the controls of SOC 2, ISO/IEC 27001:2022 (annex A)
and NIST SP 800-53 that they support evidence for. Whether a control is met is for an auditor to say.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return a.answerJSON(manifest.Controls())
			}
			return a.answer(printControls)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printControls(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "FIELD\tSOC 2\tISO 27001:2022\tNIST 800-53\tSUPPORTS EVIDENCE FOR")
	for _, s := range manifest.Controls() {
		list := func(ids []string) string { return strings.Join(ids, " ") }
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.Field, list(s.SOC2), list(s.ISO27001), list(s.NIST), s.Shows)
	}
	return w.Flush()
}
