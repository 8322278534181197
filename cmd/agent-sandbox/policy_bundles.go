package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/discover"
	"github.com/org/agent-sandbox/runner/engine"
)

// bundleFlags are the flags of `policy bundles`.
type bundleFlags struct {
	image, policy string
	json          bool
}

func (a *app) policyBundlesCommand() *cobra.Command {
	var f bundleFlags
	c := &cobra.Command{
		Use:   "bundles [NAME]",
		Short: "List the bundles of hosts, or explain one",
		Long: `bundles lists what a bare word under network.allow stands for. With a name it lists the
bundle's hosts, each with the reason and with the operator's own statement about it.

The hosts of npm, go and debian stand in no list: they are what the tools in the image and
the project's files are configured for. pypi, cargo and maven have a list that a project's
settings extend. For these, "bundles NAME" shows what a run here would find; it asks the image
in a container without network when an engine answers.`,
		Example: `  agent-sandbox policy bundles
  agent-sandbox policy bundles npm
  agent-sandbox policy bundles --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.listBundles(f.json)
			}
			return a.explainBundle(cmd.Context(), args[0], f)
		},
		ValidArgsFunction: cobra.FixedCompletions(policy.Bundles(), cobra.ShellCompDirectiveNoFileComp),
	}
	c.Flags().StringVar(&f.image, "image", "", "image to ask, instead of the policy's")
	c.Flags().StringVar(&f.policy, "policy", "", "policy file, instead of the project's "+policyFile)
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return c
}

// bundleJSON is a bundle in `policy bundles --json`: a contract, to which fields are only added.
type bundleJSON struct {
	Name       string             `json:"name"`
	About      string             `json:"about"`
	Source     string             `json:"source,omitempty"`
	Discovered bool               `json:"discovered"`
	How        string             `json:"how,omitempty"`
	Hosts      []bundleHostJSON   `json:"hosts"`
	Found      []discover.Found   `json:"found,omitempty"`
	Skipped    []discover.Skipped `json:"skipped,omitempty"`
	Missing    string             `json:"missing,omitempty"`
}

type bundleHostJSON struct {
	Host   policy.Host        `json:"host"`
	Ports  []policy.PortRange `json:"ports"`
	Reason string             `json:"reason"`
	Source string             `json:"source"`
}

func newBundleJSON(b policy.Bundle) bundleJSON {
	out := bundleJSON{Name: b.Name, About: b.About, Source: b.Source, Discovered: b.Discovered, How: b.How, Hosts: []bundleHostJSON{}}
	for _, h := range b.Hosts {
		out.Hosts = append(out.Hosts, bundleHostJSON(h))
	}
	return out
}

func (a *app) listBundles(asJSON bool) error {
	var all []policy.Bundle
	for _, name := range policy.Bundles() {
		b, _ := policy.LookupBundle(name)
		all = append(all, b)
	}
	if asJSON {
		list := make([]bundleJSON, len(all))
		for i, b := range all {
			list[i] = newBundleJSON(b)
		}
		return a.answerJSON(list)
	}
	return a.answer(func(out io.Writer) error {
		w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "BUNDLE\tHOSTS\tABOUT")
		for _, b := range all {
			hosts := fmt.Sprint(len(b.Hosts))
			switch {
			case b.Discovered:
				hosts = "found"
			case b.How != "":
				hosts += "+found"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", b.Name, hosts, b.About)
		}
		return w.Flush()
	})
}

func (a *app) explainBundle(ctx context.Context, name string, f bundleFlags) error {
	b, ok := policy.LookupBundle(name)
	if !ok {
		return usage("there is no bundle %q\nhint: `agent-sandbox policy bundles` lists them", name)
	}
	out := newBundleJSON(b)
	if b.How != "" {
		result, err := a.discover(ctx, name, f)
		if err != nil {
			return err
		}
		out.Found, out.Skipped = result.Found, result.Skipped
		for _, found := range result.Bundles {
			out.Missing = found.Missing
		}
	}
	if f.json {
		return a.answerJSON(out)
	}
	return a.answer(func(w io.Writer) error { return printBundle(w, out) })
}

// discover finds the hosts of a bundle here.
func (a *app) discover(ctx context.Context, name string, f bundleFlags) (discover.Result, error) {
	project, sub, err := a.project("")
	if err != nil {
		return discover.Result{}, err
	}
	p, err := a.policy(f.policy, project)
	if err != nil {
		return discover.Result{}, err
	}
	reference, err := imageOf(runFlags{image: f.image, policy: f.policy}, p, project)
	if err != nil {
		return discover.Result{}, err
	}
	cfg := runner.Config{Policy: p, Project: project, Subdir: sub, Image: reference}
	return a.discoverFor(ctx, cfg, []string{name})
}

// discoverFor finds the hosts of bundles: in the image and the project, or in the project alone when no engine has the image.
func (a *app) discoverFor(ctx context.Context, cfg runner.Config, bundles []string) (_ discover.Result, err error) {
	if cfg.Engine, err = a.engineConfig(); err != nil {
		return discover.Result{}, err
	}
	if cfg.Store, err = a.store(); err != nil {
		return discover.Result{}, err
	}
	defer cfg.Store.Close()
	cfg.LookupEnv = a.lookupEnv
	result, err := runner.Discover(ctx, cfg, bundles)
	if !errors.Is(err, engine.ErrUnavailable) && !errors.Is(err, engine.ErrNoImage) {
		return result, err
	}
	fmt.Fprintf(a.stderr, "agent-sandbox: note: only the project was looked at: %s\n", printableLine(err.Error()))
	return discover.Find(ctx, discover.Config{Bundles: bundles, Project: cfg.Project, Subdir: cfg.Subdir})
}

// expanded is the policy with what its agent needs, and the hosts of its bundles. A bundle that nothing is found for is said, and allows nothing.
func (a *app) expanded(ctx context.Context, p *policy.Policy, project, sub string) (*policy.Policy, error) {
	p = a.withAgent(p)
	var ask []string
	for _, name := range p.UsedBundles() {
		if b, _ := policy.LookupBundle(name); b.How != "" {
			ask = append(ask, name)
		}
	}
	var found discover.Result
	if len(ask) > 0 {
		reference, err := imageOf(runFlags{}, p, project)
		if err != nil {
			return nil, err
		}
		cfg := runner.Config{Policy: p, Project: project, Subdir: sub, Image: reference}
		if found, err = a.discoverFor(ctx, cfg, ask); err != nil {
			return nil, err
		}
	}
	out, problems := p.Expand(found.Bundles...)
	for _, problem := range problems {
		fmt.Fprintf(a.stderr, "agent-sandbox: note: %s\n", printableLine(problem.Error()))
	}
	return out, nil
}

func printBundle(out io.Writer, b bundleJSON) error {
	fmt.Fprintf(out, "%s: %s\n", b.Name, b.About)
	if b.How != "" {
		fmt.Fprintf(out, "found: %s\n", b.How)
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	if len(b.Hosts) > 0 {
		fmt.Fprintln(w, "\nHOST\tPORT\tREASON\tSOURCE")
	}
	for _, h := range b.Hosts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", h.Host, portList(h.Ports), h.Reason, h.Source)
	}
	if len(b.Found) > 0 {
		fmt.Fprintln(w, "\nFOUND HERE\tPORT\tWHERE")
	}
	for _, f := range b.Found {
		fmt.Fprintf(w, "%s\t%d\t%s\n", f.Host, f.Port, printableLine(f.Source))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, s := range b.Skipped {
		fmt.Fprintf(out, "\nleft out: %s\n", printableLine(s.String()))
		if s.Mend != "" {
			fmt.Fprintf(out, "hint: %s\n", printableLine(s.Mend))
		}
	}
	if b.Discovered && len(b.Found) == 0 && len(b.Skipped) == 0 {
		fmt.Fprintf(out, "\nnothing is found here: %s\n", printableLine(b.Missing))
	}
	return nil
}

func portList(ports []policy.PortRange) string {
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = p.String()
	}
	return strings.Join(words, ",")
}
