package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential/rotate"
)

// rotateFlags are those of credentials rotate.
type rotateFlags struct {
	credentialFlags
	oldID  string
	forget bool
}

func (a *app) credentialsRotateCommand() *cobra.Command {
	var f rotateFlags
	c := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Replace a credential's key by the policy's recipe, without a moment in which none works",
		Long: `rotate makes a new key as "rotation:" in the policy says, proves that it works, stores it wherever
the old one is kept, and only then revokes the old one. When it is stopped between two steps, or killed, the old
key works or both do: call it again, and it goes on or says what to do. Secrets are not shown, and are in no command
line; a record without them is kept in the state directory until it has finished.

Exit status: 0 when the new key is in place and the old one revoked, 1 otherwise, 2 for wrong usage or an invalid policy.`,
		Example: `  agent-sandbox credentials rotate anthropic
  agent-sandbox credentials rotate anthropic --old-id key_123`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeCredentials,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.credentialsRotate(cmd.Context(), f, args[0]) },
	}
	f.register(c)
	c.Flags().StringVar(&f.oldID, "old-id", "", "id of the present key at the provider, if nothing else tells")
	c.Flags().BoolVar(&f.forget, "forget", false, "forget a rotation that was not finished: what it left was seen to by hand")
	return c
}

func (a *app) completeCredentials(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	p, _, err := a.rotation(credentialFlags{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []cobra.Completion
	for _, c := range p.Credentials {
		if !c.Rotation.Create.IsZero() {
			names = append(names, c.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) credentialsRotate(ctx context.Context, f rotateFlags, name string) error {
	p, cfg, err := a.rotation(f.credentialFlags)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(p.Credentials, func(c policy.Credential) bool { return c.Name == name })
	if i < 0 {
		return usage("the policy has no credential %q\nhint: `agent-sandbox credentials status` lists them", name)
	}
	c := p.Credentials[i]
	if f.forget {
		return cfg.Forget(c)
	}
	opts := rotate.Options{OldID: f.oldID, Say: func(text string) { fmt.Fprintln(a.stderr, "agent-sandbox: "+printableLine(text)) }}
	result, err := rotate.Rotate(ctx, c, cfg, opts)
	if err != nil {
		return fmt.Errorf("rotate %s: %w", name, err)
	}
	if f.json {
		return a.answerJSON(result)
	}
	return a.answer(func(w io.Writer) error { return printRotation(w, result, c.From) })
}

func printRotation(w io.Writer, r rotate.Result, from policy.Origin) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s has a new key%s; the old one%s is revoked (%s)\n", r.Credential, withID(r.NewID), withID(r.OldID), r.Revocation)
	for _, s := range r.Stores {
		seen := "stored, not seen"
		if s.Verified {
			seen = "stored and seen"
		}
		fmt.Fprintf(&b, "  %s: %s\n", s.Store, seen)
	}
	if from.Kind == "env" {
		fmt.Fprintf(&b, "  %s in this environment is still the old key\n", from.Argument)
	}
	if r.Lost > 0 {
		fmt.Fprintf(&b, "  %s of an earlier try may be left at the provider, whose ids nobody knows\n", plural(r.Lost, "key"))
	}
	_, err := io.WriteString(w, printableText(b.String()))
	return err
}

func withID(id string) string {
	if id == "" {
		return ""
	}
	return " (" + id + ")"
}
