package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy/convert"
)

// firewallScript is what Claude Code's reference container keeps beside its devcontainer.json.
const firewallScript = "init-firewall.sh"

func (a *app) policyImportCommand() *cobra.Command {
	var from string
	c := &cobra.Command{
		Use:   "import --from TOOL FILE",
		Short: "Make a policy from another tool's allow list",
		Long: `import reads the configuration of another tool and prints a policy that allows the same.
What has no counterpart is listed on standard error, each with the reason.

  claude        settings.json of Claude Code: the domains of the sandbox and of WebFetch, denied paths
  srt           settings of Anthropic's sandbox-runtime
  devcontainer  devcontainer.json and the ` + firewallScript + ` beside it, or that script alone
  awf           list of domains of GitHub's gh-aw-firewall (--allow-domains-file)`,
		Example: `  agent-sandbox policy import --from claude .claude/settings.json >.agent-sandbox.yaml
  agent-sandbox policy import --from devcontainer .devcontainer/devcontainer.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.importPolicy(from, args[0]) },
	}
	c.Flags().StringVar(&from, "from", "", "the tool: "+strings.Join(convert.Kinds(), ", "))
	_ = c.RegisterFlagCompletionFunc("from", cobra.FixedCompletions(convert.Kinds(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) importPolicy(from, file string) error {
	if from == "" {
		return usage("--from is missing: want one of %s", strings.Join(convert.Kinds(), ", "))
	}
	text, err := readLimited(file, convert.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return usage("%w", err)
	}
	if err != nil {
		return err
	}
	source := convert.Source{Name: displayPath(file), Text: text}
	if from == "devcontainer" {
		script := filepath.Join(filepath.Dir(file), firewallScript)
		if source.Firewall, err = readLimited(script, convert.MaxSize); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	c, err := convert.From(from, source)
	if err != nil {
		return usage("%s: %w", file, err)
	}
	for _, left := range c.Left {
		fmt.Fprintf(a.stderr, "agent-sandbox: left out: %s: %s\n", printableLine(left.What), printableLine(left.Why))
	}
	return a.answer(func(w io.Writer) error {
		_, err := w.Write(c.Policy)
		return err
	})
}
