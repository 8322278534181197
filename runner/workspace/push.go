package workspace

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/org/agent-sandbox/runner/secret"
)

// PushConfig says which commit to push where.
type PushConfig struct {
	Target string       // the project, whose repository has the commit
	Commit string       // its full id
	Branch string       // at the server, without refs/heads/
	URL    string       // of the repository there: https, or http to this host
	Token  secret.Value // password of x-access-token

	CAFile         string // PEM file of the certificate authorities to trust in place of the system's
	Proxy, NoProxy string // as in https_proxy and no_proxy
}

// Push puts a commit on a branch of a server, which it may make or move forward, never back. The repository is asked for its objects alone:
// its configuration, hooks, remotes and credentials, which an agent may have written, have no part in it.
func Push(ctx context.Context, cfg PushConfig) (err error) {
	base, err := pushBase(cfg.URL)
	if err != nil {
		return err
	}
	scratch, err := newScratch("")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	git, err := newGitCmd(scratch)
	if err != nil {
		return err
	}
	user, err := openRepo(ctx, git, cfg.Target)
	if err != nil {
		return err
	}
	if !user.validID(cfg.Commit) {
		return fmt.Errorf("push: %q is not a commit id", cfg.Commit)
	}
	if err := user.checkName(ctx, cfg.Branch); err != nil {
		return err
	}
	temp, err := newTempRepo(git, scratch, user)
	if err != nil {
		return err
	}
	// A rejection of the server's is an error with what it said.
	_, err = temp.git.with(cfg.environ(base)...).run(ctx, nil, "push", "--quiet", "--no-verify", "--no-follow-tags", "--no-signed", "--recurse-submodules=no",
		"--end-of-options", cfg.URL, cfg.Commit+":refs/heads/"+cfg.Branch)
	if err != nil {
		return fmt.Errorf("push branch %s to %s: %w", cfg.Branch, base.Host, err)
	}
	return nil
}

// pushBase is the server of a repository's URL. What is not encrypted goes to this host alone.
func pushBase(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("push: %q is no https URL", u.Redacted())
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("push: %q has more than a path", u.Redacted())
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}, nil
}

// environ gives git the credential by the environment, which other users can't read, and for this server alone.
func (cfg PushConfig) environ(base *url.URL) []string {
	basic := base64.StdEncoding.EncodeToString([]byte("x-access-token:" + cfg.Token.Reveal()))
	settings := [][2]string{
		{"http." + base.String() + ".extraHeader", "Authorization: Basic " + basic},
		{"http.followRedirects", "false"},
	}
	env := []string{"GIT_ALLOW_PROTOCOL=" + base.Scheme, "GIT_CONFIG_COUNT=" + strconv.Itoa(len(settings))}
	for i, s := range settings {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, s[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, s[1]))
	}
	for name, value := range map[string]string{
		"GIT_SSL_CAINFO": cfg.CAFile, "https_proxy": cfg.Proxy, "http_proxy": cfg.Proxy, "no_proxy": cfg.NoProxy,
	} {
		if value != "" && !strings.ContainsRune(value, 0) {
			env = append(env, name+"="+value)
		}
	}
	return env
}
