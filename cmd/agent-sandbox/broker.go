package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

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
	c.AddCommand(a.brokerServeCommand())
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
ceiling of the configuration allows it. Besides: /healthz, /readyz and /metrics.`,
		Example: `  agent-sandbox broker serve --config broker.yaml`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.serveBroker(cmd.Context(), file) },
	}
	c.Flags().StringVar(&file, "config", "", "the broker's configuration")
	return c
}

func (a *app) brokerConfig(file string) (broker.Config, error) {
	if file == "" {
		return broker.Config{}, usage("--config is missing")
	}
	src, err := readLimited(file, policy.MaxSize)
	if err != nil {
		return broker.Config{}, usage("--config: %w", err)
	}
	cfg, err := broker.ParseConfig(file, src)
	if err != nil {
		return cfg, usage("%w", err)
	}
	for i := range cfg.Apps {
		at := &cfg.Apps[i]
		switch {
		case at.KeyEnv != "" && at.KeyFile != "" || at.KeyEnv == "" && at.KeyFile == "":
			return cfg, usage("%s: apps[%d]: want one of key_file and key_env", file, i)
		case at.KeyEnv != "":
			at.Key = secret.New(a.env(at.KeyEnv))
		default:
			key, err := readLimited(at.KeyFile, policy.MaxSize)
			if err != nil {
				return cfg, err
			}
			at.Key = secret.New(string(key))
		}
	}
	return cfg, nil
}

// drain is how long requests have to end once the program has been told to.
const drain = 30 * time.Second

func (a *app) serveBroker(ctx context.Context, file string) error {
	cfg, err := a.brokerConfig(file)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(a.stderr, nil))
	b, err := broker.New(cfg, log)
	if err != nil {
		return usage("%s: %w", file, err)
	}
	defer func() { _ = b.Close() }()
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10}
	log.Info("broker serves", "address", l.Addr().String())
	ended := make(chan error, 1)
	go func() {
		if cfg.TLS.Certificate != "" || cfg.TLS.Key != "" {
			ended <- server.ServeTLS(l, cfg.TLS.Certificate, cfg.TLS.Key)
			return
		}
		ended <- server.Serve(l)
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err = server.Shutdown(ctx)
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
