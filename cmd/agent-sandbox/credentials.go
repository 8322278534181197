package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"path/filepath"
	"slices"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/credential/rotate"
	"github.com/org/agent-sandbox/runner/scaffold"
)

// credentialSources gathers what the environment says for the policy's credentials.
func (a *app) credentialSources(p *policy.Policy, project string, cas [][]byte) (runner.CredentialSources, error) {
	if len(p.Credentials) == 0 {
		return runner.CredentialSources{}, nil
	}
	keep, err := a.tokenDirs()
	if err != nil {
		return runner.CredentialSources{}, err
	}
	book, err := a.book()
	if err != nil {
		return runner.CredentialSources{}, err
	}
	s := runner.CredentialSources{Book: book, HTTP: webClient(cas), GitHubAPI: a.env("GITHUB_API_URL"), Keep: keep[0]}
	if identity := actions.IdentityFromEnv(a.lookupEnv); identity != nil {
		s.OIDC = identity.IDToken
	}
	if slices.ContainsFunc(p.Credentials, func(c policy.Credential) bool { return slices.Contains(c.Repositories, "self") }) {
		s.Self = a.selfRepository(project)
	}
	return s, nil
}

// book is what this machine remembers of secrets, without the secrets.
func (a *app) book() (*rotate.Book, error) {
	state, err := a.dir("XDG_STATE_HOME", ".local", "state")
	if err != nil {
		return nil, err
	}
	return rotate.OpenBook(filepath.Join(state, "credentials"))
}

// selfRepository is the project's on GitHub, as the job or the project's remote says; empty if neither does. Git is not asked: the
// project's configuration could make it run a program.
func (a *app) selfRepository(project string) string {
	if name := a.env("GITHUB_REPOSITORY"); name != "" {
		return name
	}
	found, err := scaffold.Detect(project)
	if err != nil {
		return ""
	}
	return found.Repository
}

// webClient is for brokers and GitHub: through the company's proxy if the environment names one, and with its certificates.
func webClient(cas [][]byte) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if len(cas) > 0 {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		for _, pem := range cas {
			roots.AppendCertsFromPEM(pem)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: transport}
}

// tokenDirs are where tokens are kept that are to be revoked after a kill: in memory if the system has a directory for that, else in the
// state directory. The first is the one that is written to.
func (a *app) tokenDirs() ([]string, error) {
	state, err := a.dir("XDG_STATE_HOME", ".local", "state")
	if err != nil {
		return nil, err
	}
	dirs := []string{filepath.Join(state, "tokens")}
	if memory := a.env("XDG_RUNTIME_DIR"); filepath.IsAbs(memory) && exists(memory) {
		dirs = append([]string{filepath.Join(memory, "agent-sandbox", "tokens")}, dirs...)
	}
	return dirs, nil
}

// tokens are those that dead runs left.
func (w *cleaner) tokens() ([]leftover, error) {
	dirs, err := w.app.tokenDirs()
	if err != nil {
		return nil, err
	}
	var found []leftover
	var errs []error
	for _, dir := range dirs {
		runs, err := credential.KeptRuns(dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, run := range runs {
			l := leftover{What: "the tokens of run " + run + ": they are revoked", Run: run}
			if dead, known := w.dead(run); !known {
				l.What = "tokens"
				w.left = append(w.left, l)
				continue
			} else if !dead {
				continue
			}
			l.remove = func(ctx context.Context) error {
				_, err := credential.RevokeKept(ctx, dir, run, webClient(nil))
				return err
			}
			found = append(found, l)
		}
	}
	return found, errors.Join(errs...)
}
