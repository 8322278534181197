package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/credential/rotate"
	"github.com/org/agent-sandbox/runner/event"
)

// credentialFlags are those of the commands on credentials.
type credentialFlags struct {
	policy, workspace, ceiling string
	caFiles                    []string
	json, markdown             bool
}

func (a *app) credentialsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "credentials",
		Short: "See how old the policy's credentials are, and replace them",
		Args:  groupArgs,
		RunE:  showHelp,
	}
	c.AddCommand(a.credentialsStatusCommand(), a.credentialsRotateCommand())
	return c
}

func (f *credentialFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.policy, "policy", "", "policy file, instead of the project's "+policyFile)
	flags.StringVar(&f.workspace, "workspace", "", "project directory, instead of the one around the current directory")
	flags.StringVar(&f.ceiling, "ceiling", "", "policy file that bounds the project's, such as an organisation's; also from $"+ceilingVariable)
	flags.StringArrayVar(&f.caFiles, "ca-file", nil, "PEM file of certificate authorities to trust beside the system's; repeatable")
	flags.BoolVar(&f.json, "json", false, "print the answer as JSON")
}

func (a *app) credentialsStatusCommand() *cobra.Command {
	var f credentialFlags
	c := &cobra.Command{
		Use:   "status",
		Short: "Tell the age, scope and last use of each credential; 1 if one is overdue",
		Long: `status tells of each credential of the policy how old it is and when it is due, by its "rotate:"; where
it may go and what for; and when a run of this machine used it last. What the kit of the policy's "agent:" brings is
among them, if its variable is set. It shows no secret, starts no command that a policy
names and logs in nowhere: of exec: and vault: it does not read the secret, and says so.

Who says so is told too: "observed" is what this machine, a file's date or the date of the place where the key is
kept tells, "asserted" is the policy's "rotated: DATE". A key whose age nobody knows is never called fresh.

Exit status: 0 if none is overdue, 1 if one is, 2 for wrong usage or an invalid policy.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.credentialsStatus(cmd.Context(), f) },
	}
	f.register(c)
	c.Flags().BoolVar(&f.markdown, "markdown", false, "print the answer for an issue or a pull request")
	c.MarkFlagsMutuallyExclusive("json", "markdown")
	return c
}

// rotation gathers what the commands on credentials work with.
func (a *app) rotation(f credentialFlags) (*policy.Policy, rotate.Config, error) {
	project, _, err := a.project(f.workspace)
	if err != nil {
		return nil, rotate.Config{}, err
	}
	p, err := a.policy(f.policy, project)
	if err != nil {
		return nil, rotate.Config{}, err
	}
	p, kit, err := a.withKitOf(p)
	if err != nil {
		return nil, rotate.Config{}, err
	}
	limits, err := a.underCeiling(f.ceiling, p, kit)
	if err != nil {
		return nil, rotate.Config{}, err
	}
	cas, err := caFiles(f.caFiles)
	if err != nil {
		return nil, rotate.Config{}, err
	}
	book, err := a.book()
	if err != nil {
		return nil, rotate.Config{}, err
	}
	sources := credential.Config{LookupEnv: a.lookupEnv, Dir: project, Self: a.selfRepository(project), HTTP: webClient(cas), GitHubAPI: a.env("GITHUB_API_URL")}
	if identity := actions.IdentityFromEnv(a.lookupEnv); identity != nil {
		sources.OIDC = identity.IDToken
	}
	return limits.policy, rotate.Config{Sources: sources, Book: book, Scope: project}, nil
}

func (a *app) credentialsStatus(ctx context.Context, f credentialFlags) error {
	p, cfg, err := a.rotation(f)
	if err != nil {
		return err
	}
	report, err := cfg.Report(ctx, p.Credentials)
	if err != nil {
		return err
	}
	for i, c := range p.Credentials {
		if c.OfKit() {
			report.Credentials[i].Kit = p.Agent
		}
	}
	switch {
	case f.json:
		err = a.answerJSON(report)
	case f.markdown:
		err = a.answer(func(w io.Writer) error { return markdownStatus(w, report) })
	default:
		err = a.answer(func(w io.Writer) error { return printStatus(w, report) })
	}
	if err == nil && report.Overdue > 0 {
		return &statusError{code: exitError}
	}
	return err
}

// printStatus is the table for people.
func printStatus(w io.Writer, r rotate.Report) error {
	if len(r.Credentials) == 0 {
		_, err := fmt.Fprintln(w, "the policy has no credentials")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "CREDENTIAL\tSTATE\tAGE\tLIMIT\tDUE\tKNOWN BY\tLAST USE\tSOURCE")
	for _, s := range r.Credentials {
		fmt.Fprintln(t, strings.Join([]string{s.Name, string(s.State), ageOf(s), dash(s.Limit), dayOf(s.Due), basisOf(s), dayOf(s.LastUsed), clip(s.Source, 40)}, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range r.Credentials {
		fmt.Fprintf(w, "\n%s: %s\n", s.Name, scopeText(s.Scope))
		for _, store := range s.Stores {
			fmt.Fprintf(w, "  kept in %s: %s\n", printableLine(store.Store), storeText(store))
		}
		for _, text := range []string{broughtBy(s.Kit), s.Detail, s.Pending} {
			if text != "" {
				fmt.Fprintf(w, "  %s\n", printableLine(text))
			}
		}
	}
	return nil
}

func broughtBy(kit string) string {
	if kit == "" {
		return ""
	}
	return "the kit of the agent " + kit + " brings it; named in the policy it can have a limit"
}

// markdownStatus is the body of an issue: what is overdue, and what is not known.
func markdownStatus(w io.Writer, r rotate.Report) error {
	fmt.Fprintf(w, "%s overdue, %d of unknown age, checked %s.\n\n", plural(r.Overdue, "credential"), r.Unknown, r.Checked.Format(time.RFC3339))
	fmt.Fprint(w, "| credential | state | age | limit | due | known by | source |\n|---|---|---|---|---|---|---|\n")
	for _, s := range r.Credentials {
		cells := []string{s.Name, string(s.State), ageOf(s), dash(s.Limit), dayOf(s.Due), basisOf(s), "`" + clip(s.Source, 60) + "`"}
		for i := range cells {
			cells[i] = strings.NewReplacer("|", `\|`, "\n", " ").Replace(cells[i])
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
	for _, s := range r.Credentials {
		if s.Recipe && s.State == event.AgeOverdue {
			fmt.Fprintf(w, "\n`agent-sandbox credentials rotate %s` replaces it.\n", s.Name)
		}
	}
	return nil
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func dayOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.DateOnly)
}

// ageOf is in days, or in hours for the first two.
func ageOf(s rotate.Status) string {
	if s.AgeSecs == nil {
		return "-"
	}
	text := fmt.Sprintf("%dd", *s.AgeSecs/(24*60*60))
	if *s.AgeSecs < 48*60*60 {
		text = fmt.Sprintf("%dh", *s.AgeSecs/(60*60))
	}
	if s.AtLeast {
		return ">" + text
	}
	return text
}

// basisOf is what tells an age, and what that is worth.
func basisOf(s rotate.Status) string {
	if s.Basis == "" {
		return s.Provenance
	}
	return s.Basis + ", " + s.Provenance
}

func storeText(s rotate.StoreAge) string {
	switch {
	case s.Written != nil:
		return "written " + s.Written.Format(time.DateTime)
	case s.Detail != "":
		return printableLine(s.Detail)
	}
	return "it does not tell when"
}

// scopeText is one line about where a credential may go.
func scopeText(s rotate.Scope) string {
	text := "delivered by " + s.Deliver
	if len(s.Hosts) > 0 {
		text += ", to " + strings.Join(s.Hosts, ", ")
	}
	if len(s.Requests) > 0 {
		text += ", for " + plural(len(s.Requests), "kind") + " of requests"
	}
	if len(s.Repositories) > 0 {
		text += ", repositories " + strings.Join(s.Repositories, ", ")
	}
	if len(s.Permissions) > 0 {
		text += ", " + plural(len(s.Permissions), "permission")
	}
	if len(s.Push) > 0 {
		text += ", push to " + strings.Join(s.Push, ", ")
	}
	if s.Broad != "" {
		text += "; broad: " + s.Broad
	}
	return printableLine(text)
}
