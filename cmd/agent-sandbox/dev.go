package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner/issuer"
)

// oidcFlags are the flags of dev oidc.
type oidcFlags struct {
	listen, repository, ref string
	claims                  []string
}

func (a *app) devCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "dev",
		Short: "Stand-ins for trying things out on this machine",
		Args:  groupArgs,
		RunE:  showHelp,
	}
	c.AddCommand(a.devOIDCCommand())
	return c
}

func (a *app) devOIDCCommand() *cobra.Command {
	var f oidcFlags
	c := &cobra.Command{
		Use:   "oidc [flags] [-- COMMAND [ARG...]]",
		Short: "Be an OIDC issuer for jobs that run locally: act has none",
		Long: `oidc answers as GitHub does when a job asks for its identity, with an issuer and a key of its own. With a
command it runs that with the two variables that a job needs, and ends with it; without one it prints
them and goes on until it is interrupted.

The tokens have the claims of GitHub's for a job that was started by hand, from the workflow that init writes.
What is not known here, such as the numbers of the repository and its owner by which a broker knows them, is 0 unless --claim says it.
With --claim environment=NAME or event_name=pull_request the subject is what GitHub makes it then.

The tokens name this machine as their issuer: no broker accepts them that was not told to, and the record of
a run says that its identity is a local one.`,
		Example: `  agent-sandbox dev oidc -- act workflow_dispatch --env ACTIONS_ID_TOKEN_REQUEST_URL --env ACTIONS_ID_TOKEN_REQUEST_TOKEN
  agent-sandbox dev oidc --repository acme/shop --claim repository_id=42 --claim repository_owner_id=7 >oidc.env`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.devOIDC(cmd.Context(), f, args) },
	}
	c.Flags().StringVar(&f.listen, "listen", "127.0.0.1:0", "loopback address and port; 0 takes any")
	c.Flags().StringVar(&f.repository, "repository", "", "owner/name that the tokens are for, instead of the project's on GitHub")
	c.Flags().StringVar(&f.ref, "ref", "refs/heads/main", "ref that the tokens are for")
	c.Flags().StringArrayVar(&f.claims, "claim", nil, "NAME=VALUE of a further claim, or another value for one; repeatable")
	c.Flags().SetInterspersed(false)
	return c
}

func (a *app) devOIDC(ctx context.Context, f oidcFlags, args []string) (err error) {
	claims, err := a.localClaims(ctx, f)
	if err != nil {
		return err
	}
	l, err := listenLocally(ctx, f.listen)
	if err != nil {
		return err
	}
	i, err := issuer.New(issuer.Config{URL: "http://" + l.Addr().String(), Claims: claims})
	if err != nil {
		return errors.Join(usage("--claim: %w", err), l.Close())
	}
	server := &http.Server{Handler: i, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() { err = errors.Join(err, server.Close(), ended(<-served)) }()
	if len(args) > 0 {
		return a.withEnviron(ctx, i.Environ(), args)
	}
	for _, kv := range i.Environ() {
		if _, err := fmt.Fprintln(a.stdout, kv); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.stderr, "agent-sandbox: the issuer %s answers until it is interrupted\n", "http://"+l.Addr().String())
	<-ctx.Done()
	return nil
}

// ended takes the error of a server that was closed on purpose away.
func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// listenLocally: whoever reaches the issuer and has the bearer token gets tokens, so nobody else on the network does.
func listenLocally(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usage("--listen: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, usage("--listen: %s is not a loopback address\nhint: 127.0.0.1:0", host)
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

// withEnviron runs a command with further variables. Ctrl-C reaches it through the terminal; a signal to us alone is passed on.
func (a *app) withEnviron(ctx context.Context, env, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
		return &statusError{code: exit.ExitCode()}
	}
	return err
}
