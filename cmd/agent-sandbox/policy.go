package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
)

func (a *app) policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Check and explain the policy file",
		Long: `The policy of a project is the file ` + policyFile + ` at its root. Without one nothing is
allowed to leave the sandbox, and the project's files stay as they are.`,
		Args: groupArgs,
		RunE: showHelp,
	}
	c.AddCommand(a.policyCheckCommand(), a.policyExplainCommand(), a.policyBundlesCommand(), a.policyLearnCommand(), a.policyImportCommand(), a.policySchemaCommand())
	return c
}

func (a *app) policyCheckCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "check [FILE...]",
		Short: "Report every problem of policy files at once",
		Long: `check reports everything that is wrong with the files, or with the project's policy, each
with its place and what to do about it. Of a valid one it prints the digest too, which says what the file
means: the manifest of a run has that one, unless a ceiling narrows it or a bundle finds hosts.

Exit status: 0 when all are valid, 2 when one is not.`,
		Example: `  agent-sandbox policy check
  agent-sandbox policy check --json ci/policy.yaml`,
		RunE: func(_ *cobra.Command, args []string) error { return a.checkPolicies(args, asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the problems as JSON")
	return c
}

// problemJSON is a problem in `policy check --json`: a contract, to which fields are only added.
type problemJSON struct {
	policy.Place
	Path    string `json:"path"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (a *app) checkPolicies(files []string, asJSON bool) error {
	if len(files) == 0 {
		project, _, err := a.project("")
		if err != nil {
			return err
		}
		file := filepath.Join(project, policyFile)
		if !exists(file) {
			if err := misnamed(project); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "agent-sandbox: %s has no %s: the default policy holds\n", printableLine(project), policyFile)
			return nil
		}
		files = []string{displayPath(file)}
	}
	var all policy.Problems
	var valid []string
	for _, file := range files {
		digest, problems, err := a.checkPolicy(file)
		if err != nil {
			return err
		}
		if all = append(all, problems...); len(problems) == 0 {
			valid = append(valid, fmt.Sprintf("%s: ok, %s", printableLine(file), digest))
		}
	}
	var err error
	if asJSON {
		err = a.answerJSON(problemsJSON(all))
	} else {
		err = a.answer(func(w io.Writer) error { printProblems(w, all, valid); return nil })
	}
	if err == nil && len(all) > 0 {
		err = &statusError{code: exitUsage}
	}
	return err
}

// checkPolicy gives the problems of one file, or the digest if there are none. What is valid, but beyond this version, is a note.
func (a *app) checkPolicy(file string) (digest string, problems policy.Problems, err error) {
	src, err := readLimited(file, policy.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, usage("%w\nhint: name a policy file", err)
	}
	if err != nil {
		return "", nil, err
	}
	p, err := policy.Load(file, src)
	if errors.As(err, &problems) {
		return "", problems, nil
	}
	if err != nil {
		return "", nil, err
	}
	for _, note := range policy.Unsupported(p, features()) {
		fmt.Fprintf(a.stderr, "agent-sandbox: note: `run` will refuse this: %s\n", printableLine(note.Error()))
	}
	return p.Digest(), nil, nil
}

func problemsJSON(all policy.Problems) []problemJSON {
	list := make([]problemJSON, len(all))
	for i, p := range all {
		list[i] = problemJSON{p.Place, p.Path, p.Message, p.Hint}
	}
	return list
}

func printProblems(w io.Writer, all policy.Problems, valid []string) {
	for _, p := range all {
		fmt.Fprintln(w, printableLine(p.Error()))
	}
	for _, line := range valid {
		fmt.Fprintln(w, line)
	}
}

func (a *app) policyExplainCommand() *cobra.Command {
	var file string
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain HOST[:PORT] [METHOD PATH]",
		Short: "Say what the policy answers to a connection or a request, and why",
		Long: `explain asks the policy what the sandbox would ask it, and tells which rule decides, where
that is, and what would have to be added for another answer. The port is 443 if none is given.
Bundles count with the hosts that they have here: see "policy bundles".

Exit status: 0 when it is allowed, 1 when it is refused, 2 when the policy is invalid.`,
		Example: `  agent-sandbox policy explain api.github.com
  agent-sandbox policy explain api.github.com POST /repos/acme/shop/pulls`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 3 {
				return errors.New("want HOST[:PORT], or HOST[:PORT] METHOD PATH")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.explain(cmd.Context(), append(args, "", ""), file, asJSON)
		},
	}
	c.Flags().StringVar(&file, "policy", "", "policy file, instead of the project's "+policyFile)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// explanationJSON is `policy explain --json`: a contract, to which fields are only added.
type explanationJSON struct {
	Request struct {
		Host   string `json:"host"`
		Port   uint16 `json:"port"`
		Method string `json:"method,omitempty"`
		Path   string `json:"path,omitempty"`
	} `json:"request"`
	Action policy.Action `json:"action"`
	Code   policy.Code   `json:"code"`
	Reason string        `json:"reason"`
	Rule   string        `json:"rule,omitempty"`
	Place  *policy.Place `json:"place,omitempty"`
	Add    string        `json:"add,omitempty"`
	Hint   string        `json:"hint,omitempty"`
}

// explain takes target, method and path, the last two empty for a connection.
func (a *app) explain(ctx context.Context, args []string, file string, asJSON bool) error {
	req, err := policy.ParseRequest(args[0], args[1], args[2])
	if err != nil {
		return usage("%w", err)
	}
	project, sub, err := a.project("")
	if err != nil {
		return err
	}
	p, err := a.policy(file, project)
	if err != nil {
		return err
	}
	if p, err = a.expanded(ctx, p, project, sub); err != nil {
		return err
	}
	e := p.Explain(req)
	if asJSON {
		err = a.answerJSON(newExplanationJSON(e))
	} else {
		err = a.answer(func(w io.Writer) error { printExplanation(w, painter(a.color(a.stdout)), e); return nil })
	}
	if err == nil && !e.Verdict.Allowed() {
		err = &statusError{code: exitError}
	}
	return err
}

func newExplanationJSON(e policy.Explanation) explanationJSON {
	v := explanationJSON{Action: e.Verdict.Action, Code: e.Verdict.Code, Reason: e.Verdict.Reason, Rule: e.Line, Add: e.Add, Hint: e.Hint}
	v.Request.Host, v.Request.Port, v.Request.Method, v.Request.Path = e.Request.Host, e.Request.Port, e.Request.Method, e.Request.Path
	if e.Place.File != "" {
		v.Place = &e.Place
	}
	return v
}

func printExplanation(w io.Writer, p painter, e policy.Explanation) {
	row := func(label, text string) {
		if text != "" {
			fmt.Fprintf(w, "%s %s\n", p.paint(dim, fmt.Sprintf("%-8s", label)), printableLine(text))
		}
	}
	word, color := "refused", red
	if e.Verdict.Allowed() {
		word, color = "allowed", green
	}
	fmt.Fprintf(w, "%s %s\n", p.paint(color, fmt.Sprintf("%-8s", word)), printableLine(e.Request.String()))
	row("reason", e.Verdict.Reason)
	if e.Line != "" {
		row("rule", e.Place.String()+": "+e.Line)
	}
	if e.Add != "" {
		row("add", "to network.allow: - "+e.Add)
	}
	row("hint", e.Hint)
}

func (a *app) policySchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of the policy file",
		Long: `schema prints the JSON schema (draft 2020-12) of ` + policyFile + `, for editors and other
programs. "policy check" refuses more than a schema can say.`,
		Example: `  agent-sandbox policy schema >agent-sandbox.schema.json`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.answer(func(w io.Writer) error {
				_, err := w.Write(policy.Schema())
				return err
			})
		},
	}
}
