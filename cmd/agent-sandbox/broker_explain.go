package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner/broker"
)

// maxTokenInput is more than any token has that the broker would look at, in bytes.
const maxTokenInput = 64 << 10

func (a *app) brokerExplainCommand() *cobra.Command {
	var file, scope, identity string
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain --config FILE --scope OWNER/REPO [--identity NAME] TOKEN|-",
		Short: "Say what each check of an exchange says of a token, and issue nothing",
		Long: `explain makes the checks of an exchange, in their order, with the configuration, the database and the Apps of
the broker, and tells more than the broker tells its clients. Nothing is issued, and the
token is not used up. To read the trust policy it has a token of the App for a moment, which can
read that one repository, and which it revokes.

With - the token is read from stdin, and does not show in the list of processes.

Exit status: 0 when the exchange would be granted, 1 when not.`,
		Example: `  agent-sandbox broker explain --config broker.yaml --scope acme/shop - <token`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := a.tokenArgument(args[0])
			if err != nil {
				return err
			}
			return a.explainToken(cmd.Context(), file, token, scope, identity, asJSON)
		},
	}
	c.Flags().StringVar(&file, "config", "", "the broker's configuration")
	c.Flags().StringVar(&scope, "scope", "", "owner/name of the repository that the token is to be for")
	c.Flags().StringVar(&identity, "identity", "agent-sandbox", "name of the trust policy there")
	c.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return c
}

// tokenArgument is the argument, or what stdin has.
func (a *app) tokenArgument(arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	text, err := io.ReadAll(io.LimitReader(a.stdin, maxTokenInput+1))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if len(text) > maxTokenInput {
		return "", usage("the token on stdin is larger than %d KiB", maxTokenInput>>10)
	}
	return strings.TrimSpace(string(text)), nil
}

func (a *app) explainToken(ctx context.Context, file, token, scope, identity string, asJSON bool) error {
	b, _, err := a.openBroker(ctx, file, slog.LevelError)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	e := b.Explain(ctx, token, scope, identity)
	if asJSON {
		err = a.answerJSON(e)
	} else {
		err = a.answer(func(w io.Writer) error { return printFindings(w, e) })
	}
	if err == nil && !e.Admitted {
		err = errors.New("the broker would not grant this")
	}
	return err
}

func printFindings(out io.Writer, e broker.Explanation) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range e.Findings {
		why := f.Reason
		if f.Detail != "" {
			why += ": " + f.Detail
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s\t%s\t%s", f.Check, f.Verdict, printableLine(why)), "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if e.Subject != "" {
		fmt.Fprintf(out, "subject: %s\n", printableLine(e.Subject))
	}
	if e.Policy != nil {
		fmt.Fprintf(out, "policy: %s at %s\n", e.Policy.Path, e.Policy.Commit)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Permissions)) {
		fmt.Fprintf(out, "would be granted: %s: %s\n", printableLine(name), e.Permissions[name])
	}
	return nil
}
