package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/broker/selftest"
)

// gitHubIssuer is who signs the identities of jobs on github.com.
const gitHubIssuer = "https://token.actions.githubusercontent.com"

// selftestFlags are the flags of broker selftest.
type selftestFlags struct {
	issuer, jwks, audience string
	json                   bool
}

func (a *app) brokerSelftestCommand() *cobra.Command {
	var f selftestFlags
	c := &cobra.Command{
		Use:   "selftest URL",
		Short: "Attack a broker with forged tokens, and say which it refused",
		Long: `selftest shows a broker, ours or any other that speaks octo-sts' protocol, forged tokens and says of each whether
it was refused. It is read-only: what it asks for is a repository that does not exist, so that even a
broker that falls for an attack issues nothing. Controls say whether a refusal means anything.

In a job with the permission id-token: write it attacks with tokens of the job as well: a replay, two
headers, another audience, a changed claim. What takes the issuer's own key is printed as skipped.

It makes about forty requests; a broker that counts those that are not valid may hold this client off for a minute.

Exit status: 0 when every control passed and every attack was refused, 1 when not.`,
		Example: `  agent-sandbox broker selftest https://broker.example.org
  agent-sandbox broker selftest --json https://octo-sts.dev`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.selftestBroker(cmd.Context(), args[0], f) },
	}
	c.Flags().StringVar(&f.issuer, "issuer", gitHubIssuer, "an issuer that the broker trusts")
	c.Flags().StringVar(&f.jwks, "jwks", "", "where the issuer's keys are, instead of ISSUER/.well-known/jwks")
	c.Flags().StringVar(&f.audience, "audience", "", "what the broker wants as aud, instead of its host name")
	c.Flags().BoolVar(&f.json, "json", false, "print the results as JSON")
	return c
}

func (a *app) selftestBroker(ctx context.Context, address string, f selftestFlags) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return usage("%q is not the URL of a broker", address)
	}
	client := webClient(nil)
	client.Timeout = time.Minute
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	cfg := selftest.Config{
		URL: u, Audience: cmp.Or(f.audience, u.Hostname()), Issuer: f.issuer,
		JWKS: cmp.Or(f.jwks, strings.TrimSuffix(f.issuer, "/")+"/.well-known/jwks"), Client: client,
	}
	if identity := actions.IdentityFromEnv(a.lookupEnv); identity != nil {
		cfg.Identity = identity.IDToken
	}
	results, err := selftest.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if f.json {
		err = a.answerJSON(struct {
			Passed  bool              `json:"passed"`
			Results []selftest.Result `json:"results"`
		}{selftest.Passed(results), results})
	} else {
		err = a.answer(func(w io.Writer) error { return printSelftest(w, results) })
	}
	if err == nil && !selftest.Passed(results) {
		err = errors.New("the broker did not pass")
	}
	return err
}

func printSelftest(out io.Writer, results []selftest.Result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	counts := map[selftest.Verdict]int{}
	for _, r := range results {
		kind := "attack"
		if r.Control {
			kind = "control"
		}
		counts[r.Verdict]++
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s\t%s\t%s\t%s", r.Verdict, kind, printableLine(r.Name), printableLine(r.Detail)), "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d ok, %d broken, %d unclear, %d skipped\n", counts[selftest.OK], counts[selftest.Broken], counts[selftest.Unclear], counts[selftest.Skipped])
	return err
}
