package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/broker"
	"github.com/org/agent-sandbox/runner/secret"
)

func (a *app) brokerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "broker",
		Short: "Exchange the OIDC tokens of jobs for short-lived tokens of GitHub",
		Args:  groupArgs,
		RunE:  showHelp,
	}
	c.AddCommand(a.brokerServeCommand(), a.brokerExplainCommand(), a.brokerSelftestCommand())
	return c
}

func (a *app) brokerServeCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Serve the exchange, as octo-sts does",
		Long: `serve answers GET and POST /sts/exchange?scope=OWNER/REPO&identity=NAME with a token of a
GitHub App for that one repository, if the trust policy there (.github/agent-sandbox/trust/NAME.yaml,
or octo-sts' .github/chainguard/NAME.sts.yaml, on the default branch) admits the job and the
ceiling of the configuration allows it. Besides: /healthz, /readyz and /metrics.

SIGTERM makes it take no more requests, and end when those that it has are answered.`,
		Example: `  agent-sandbox broker serve --config broker.yaml`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.serveBroker(cmd.Context(), file) },
	}
	c.Flags().StringVar(&file, "config", "", "the broker's configuration")
	return c
}

// brokerConfig reads the file, and the keys and variables that it names.
func (a *app) brokerConfig(file string) (broker.Config, error) {
	if file == "" {
		return broker.Config{}, usage("--config is missing")
	}
	src, err := readLimited(file, policy.MaxSize)
	if err != nil {
		return broker.Config{}, usage("--config: %w", err)
	}
	cfg, err := broker.ParseConfig(displayPath(file), src)
	if err != nil {
		return cfg, err
	}
	if cfg.DatabaseEnv != "" {
		cfg.DatabaseURL = secret.New(a.env(cfg.DatabaseEnv))
	}
	for i := range cfg.Apps {
		at := &cfg.Apps[i]
		switch {
		case at.KeyEnv != "" && at.KeyFile != "": // New says so
		case at.KeyEnv != "":
			at.Key = secret.New(a.env(at.KeyEnv))
		case at.KeyFile != "":
			key, err := readLimited(at.KeyFile, policy.MaxSize)
			if err != nil {
				return cfg, usage("%s: apps[%d].key_file: %w", displayPath(file), i, err)
			}
			at.Key = secret.New(string(key))
		}
	}
	return cfg, nil
}

// openBroker is the broker of a configuration file, which logs to stderr.
func (a *app) openBroker(ctx context.Context, file string, level slog.Level) (*broker.Broker, broker.Config, error) {
	cfg, err := a.brokerConfig(file)
	if err != nil {
		return nil, cfg, err
	}
	b, err := broker.New(ctx, cfg, slog.New(slog.NewJSONHandler(a.stderr, &slog.HandlerOptions{Level: level})))
	return b, cfg, err
}

func (a *app) serveBroker(ctx context.Context, file string) error {
	b, cfg, err := a.openBroker(ctx, file, slog.LevelInfo)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return b.Serve(ctx, l)
}
