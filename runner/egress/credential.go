package egress

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// Scheme is how a credential is written into its header. The zero Scheme sends nothing: New refuses it.
type Scheme int

// The schemes.
const (
	NoScheme Scheme = iota
	Bearer          // "Bearer VALUE"
	Basic           // "Basic " and the base64 of "USERNAME:VALUE"
	Raw             // "VALUE"
)

// Credential is one secret that the gateway attaches to requests. See the package comment for when it does. A service that takes
// its secret in two ways has two of one name and placeholder.
type Credential struct {
	Name string // for people and the record
	// Placeholder stands for it inside the sandbox: at least 16 letters, digits, dots, underscores and hyphens, and of no
	// use to anybody. Credentials of different names have different ones, but for those of GitHub's that are for different repositories: its
	// clients know one token, and the repository in a request's path tells which of them is meant.
	Placeholder string
	// Value is asked for each request, so renewal is its business. Its error refuses the request, and its text reaches the agent.
	Value    func(ctx context.Context) (secret.Value, error)
	Hosts    []policy.Host     // where it may be attached; others never see it
	Header   string            // empty means Authorization
	Scheme   Scheme            // required
	Username string            // for Basic
	GitHub   *GitHub           // repositories and refs that it is for; nil: it is not GitHub's, or without a scope
	Rules    []policy.HTTPRule // requests on which it is attached; none: all requests on the hosts

	echoes *echoes // set by New
}

const minPlaceholder = 16

// prepare checks the credentials and fills in their defaults.
func prepare(given []Credential) ([]Credential, error) {
	out := slices.Clone(given)
	seen, owner := map[string]string{}, map[string]*Credential{}
	for i := range out {
		c := &out[i]
		c.echoes = new(echoes)
		if c.Header == "" {
			c.Header = "Authorization"
		}
		c.Header = http.CanonicalHeaderKey(c.Header)
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("egress: credential %q: %w", c.Name, err)
		}
		if other, taken := seen[c.Name]; taken && other != c.Placeholder {
			return nil, fmt.Errorf("egress: credential %q: it has two placeholders", c.Name)
		}
		if other, taken := owner[c.Placeholder]; taken && other.Name != c.Name && (c.GitHub == nil || other.GitHub == nil) {
			return nil, fmt.Errorf("egress: credential %q: it has the placeholder of another", c.Name)
		}
		seen[c.Name], owner[c.Placeholder] = c.Placeholder, c
	}
	return out, nil
}

func (c *Credential) check() error {
	switch {
	case c.Name == "" || c.Value == nil || len(c.Hosts) == 0 || slices.ContainsFunc(c.Hosts, policy.Host.IsZero):
		return errors.New("a name, a value and hosts are required")
	case len(c.Placeholder) < minPlaceholder || strings.ContainsFunc(c.Placeholder, func(r rune) bool { return !isPlaceholderChar(r) }):
		return fmt.Errorf("its placeholder is not made of at least %d letters, digits, dots, underscores and hyphens", minPlaceholder)
	case c.GitHub != nil && len(c.GitHub.Repositories) == 0:
		return errors.New("its scope has no repositories")
	case c.Scheme != Bearer && c.Scheme != Basic && c.Scheme != Raw:
		return errors.New("its scheme is none")
	case !isFieldValue(c.Username) || strings.Contains(c.Username, ":"):
		return errors.New("its user name has a colon or a control character")
	case !isToken(c.Header) || strings.Contains(c.Header, "_") || isHopByHop(c.Header) ||
		slices.Contains([]string{"Host", "Content-Length", "Content-Type", "Expect"}, c.Header):
		return fmt.Errorf("the header %q can't carry it", c.Header)
	}
	return nil
}

func isPlaceholderChar(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._-", r)
}

// covers tells whether a host of a policy takes in one that was dialled.
func covers(h, target policy.Host) bool {
	suffix, wildcard := strings.CutPrefix(h.String(), "*")
	return h == target || wildcard && !target.Addr().IsValid() && strings.HasSuffix(target.String(), suffix)
}

// boundTo are the credentials that may be attached on a host.
func (g *Gateway) boundTo(target policy.Host) []*Credential {
	var out []*Credential
	for i := range g.credentials {
		c := &g.credentials[i]
		if slices.ContainsFunc(c.Hosts, func(h policy.Host) bool { return covers(h, target) }) {
			out = append(out, c)
		}
	}
	return out
}

// takesIn tells whether the credential is for this request. A path that has two readings is never taken in by a rule.
func (c *Credential) takesIn(method, path string) bool {
	if !c.concerns(path) || c.GitHub != nil && c.GitHub.check(method, path, c.isGit()) != nil {
		return false
	}
	if len(c.Rules) == 0 {
		return true
	}
	clean, err := policy.ParsePath(path)
	return err == nil && slices.ContainsFunc(c.Rules, func(r policy.HTTPRule) bool { return r.Match(method, clean) })
}

// carried tells whether a header's value has the placeholder, also as user name or password of Basic.
func (c *Credential) carried(value string) bool {
	if strings.Contains(value, c.Placeholder) {
		return true
	}
	scheme, encoded, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return false
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(encoded), "=") + padding(encoded))
	return err == nil && strings.Contains(string(decoded), c.Placeholder)
}

// padding is what base64 of this length ends in.
func padding(encoded string) string {
	n := len(strings.TrimRight(strings.TrimSpace(encoded), "="))
	return strings.Repeat("=", (4-n%4)%4)
}

// attachment is a credential as it was sent on one request.
type attachment struct {
	credential *Credential
	forms      []string // what must not come back to the agent
}

// attach sets the headers of the credentials that are for this request.
func (x *exchange) attach(ctx context.Context, header http.Header) ([]attachment, *end) {
	bound, method, path := x.in.bound, x.r.Method, x.path
	var out []attachment
	done := map[string]bool{}
	for _, c := range choose(bound, header, method, path) {
		if done[c.Header] || c.GitHub != nil && x.judges != nil && !slices.Contains(x.judges, c) {
			continue
		}
		done[c.Header] = true
		if e := c.checkOwn(bound, header); e != nil {
			return nil, e
		}
		text, forms, e := c.render(ctx)
		if e != nil {
			return nil, e
		}
		dropLike(header, c.Header)
		header[c.Header] = []string{text}
		out = append(out, attachment{c, forms})
	}
	for _, c := range bound {
		if c.GitHub != nil && !done[c.Header] && c.concerns(path) && c.GitHub.public(method, path, c.isGit()) {
			dropLike(header, c.Header) // clients send what they have
		}
	}
	for _, c := range bound {
		if !done[c.Header] && slices.ContainsFunc(header.Values(c.Header), c.carried) {
			return nil, refuse(CodeCredential, fmt.Sprintf("the credential %s is not for this request: its rules don't name it", c.Name))
		}
	}
	return out, nil
}

// choose are the credentials for this request, those first whose placeholder it has.
func choose(bound []*Credential, header http.Header, method, path string) []*Credential {
	var named, others []*Credential
	for _, c := range bound {
		switch {
		case !c.takesIn(method, path):
		case slices.ContainsFunc(header.Values(c.Header), c.carried):
			named = append(named, c)
		default:
			others = append(others, c)
		}
	}
	return append(named, others...)
}

// checkOwn refuses a value of the agent's own: with a token that somebody has planted, what the agent sends would end up
// in that somebody's account. GitHub's clients know one token, whatever the repository: they may send the placeholder of another of its credentials.
func (c *Credential) checkOwn(bound []*Credential, header http.Header) *end {
	own := header.Values(c.Header)
	meant := func(o *Credential) bool { return (o == c || o.GitHub != nil && c.GitHub != nil) && o.carried(own[0]) }
	switch {
	case len(own) == 0, len(own) == 1 && slices.ContainsFunc(bound, meant):
		return nil
	case len(own) > 1:
		return refuse(CodeCredential, fmt.Sprintf("the request has %d %s headers", len(own), c.Header))
	}
	return refuse(CodeCredential, fmt.Sprintf("the request has a %s of its own, where the runner attaches the credential %s: leave it out, or send the placeholder", c.Header, c.Name))
}

// render asks for the value and writes it out.
func (c *Credential) render(ctx context.Context) (text string, forms []string, e *end) {
	value, err := c.Value(ctx)
	if err != nil {
		return "", nil, fail(CodeCredential, fmt.Sprintf("the credential %s can't be had: %v", c.Name, err))
	}
	plain := value.Reveal()
	if plain == "" || !isFieldValue(plain) {
		return "", nil, fail(CodeCredential, fmt.Sprintf("the credential %s is empty, or no text for a header", c.Name))
	}
	forms = []string{plain}
	switch c.Scheme {
	case Bearer:
		return "Bearer " + plain, forms, nil
	case Basic:
		encoded := base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + plain))
		return "Basic " + encoded, append(forms, encoded), nil
	case Raw:
		return plain, forms, nil
	}
	return "", nil, fail(CodeCredential, fmt.Sprintf("the credential %s has no scheme", c.Name))
}

// dropLike removes a header in all the spellings that a gateway interface takes for it.
func dropLike(header http.Header, name string) {
	for key := range header {
		if strings.EqualFold(strings.ReplaceAll(key, "_", "-"), name) {
			delete(header, key)
		}
	}
}

// redact puts the placeholder where a header of an answer repeats the credential, in whatever encoding.
func redact(header http.Header, attached []attachment) {
	for _, a := range attached {
		set := a.credential.echoes.of(a.credential, a.forms[0])
		for _, values := range header {
			for i, v := range values {
				for _, form := range a.forms {
					v = strings.ReplaceAll(v, form, a.credential.Placeholder)
				}
				values[i] = set.Redact(v, nil)
			}
		}
	}
}
