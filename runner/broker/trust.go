package broker

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// trustPolicy says whom a repository trusts, in octo-sts' words. Events is ours.
type trustPolicy struct {
	Issuer          string            `yaml:"issuer"`
	IssuerPattern   string            `yaml:"issuer_pattern"`
	Subject         string            `yaml:"subject"`
	SubjectPattern  string            `yaml:"subject_pattern"`
	Audience        string            `yaml:"audience"`
	AudiencePattern string            `yaml:"audience_pattern"`
	ClaimPattern    map[string]string `yaml:"claim_pattern"`
	Permissions     map[string]string `yaml:"permissions"`
	Events          []string          `yaml:"events"`

	issuer, subject, audience *regexp.Regexp
	claims                    map[string]*regexp.Regexp
}

func parseTrust(src []byte) (*trustPolicy, error) {
	p := &trustPolicy{claims: map[string]*regexp.Regexp{}}
	if err := loadYAML(src, p); err != nil {
		return nil, err
	}
	var err error
	set := func(name, exact, pattern string, into **regexp.Regexp, required bool) {
		if exact != "" && pattern != "" || required && exact == "" && pattern == "" {
			err = errors.Join(err, fmt.Errorf("want one of %s and %s_pattern", name, name))
			return
		}
		if exact != "" {
			pattern = regexp.QuoteMeta(exact)
		}
		if pattern != "" {
			var bad error
			*into, bad = anchored(pattern)
			err = errors.Join(err, bad)
		}
	}
	set("issuer", p.Issuer, p.IssuerPattern, &p.issuer, true)
	set("subject", p.Subject, p.SubjectPattern, &p.subject, true)
	set("audience", p.Audience, p.AudiencePattern, &p.audience, false)
	for name, pattern := range p.ClaimPattern {
		re, bad := anchored(pattern)
		p.claims[name], err = re, errors.Join(err, bad)
	}
	for name, level := range p.Permissions {
		if rank(level) == 0 {
			err = errors.Join(err, fmt.Errorf("permissions.%s: %q is no level", name, level))
		}
	}
	if len(p.Permissions) == 0 { // leaving them out of a request means all to GitHub
		err = errors.Join(err, errors.New("permissions are missing"))
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// anchored compiles the pattern alone first: a)|(b would break out of the group.
func anchored(pattern string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, err
	}
	return regexp.Compile(`^(?:` + pattern + `)$`)
}

// isLiteralIDs is for the ids of one repository or several, as 12|34. A pattern that takes any would let every repository of GitHub in.
func isLiteralIDs(pattern string) bool {
	for id := range strings.SplitSeq(pattern, "|") {
		if id == "" || strings.Trim(id, "0123456789") != "" {
			return false
		}
	}
	return true
}

// admitsJob compares the claims of a verified token with what the policy names.
func (p *trustPolicy) admitsJob(c *claims, audience string) error {
	if !p.issuer.MatchString(c.Issuer) || !p.subject.MatchString(c.Subject) {
		return errors.New("issuer or subject is another")
	}
	if p.audience != nil && !p.audience.MatchString(audience) {
		return errors.New("audience is another")
	}
	for name, re := range p.claims {
		v, ok := c.all[name]
		if b, isBool := v.(bool); isBool {
			v = strconv.FormatBool(b)
		}
		s, isString := v.(string)
		if !ok || !isString || !re.MatchString(s) {
			return fmt.Errorf("claim %q is missing or another", name)
		}
	}
	return nil
}

// admitsRepository wants the target to be the job's own repository by its ids, since names and subjects can be taken over by others; another repository, such as
// a fork, counts only where a claim pattern names it by its repository_id.
func (p *trustPolicy) admitsRepository(c *claims, target repository) error {
	own := c.RepositoryID == strconv.FormatInt(target.ID, 10) && c.OwnerID == strconv.FormatInt(target.Owner.ID, 10)
	if !own && !isLiteralIDs(p.ClaimPattern["repository_id"]) {
		return fmt.Errorf("job of repository %s of owner %s, and no claim pattern that names it by repository_id", c.RepositoryID, c.OwnerID)
	}
	return nil
}

// admitsEvent refuses pull_request_target, where strangers decide on what runs, unless it is named.
func (p *trustPolicy) admitsEvent(c *claims) error {
	if c.Event == "pull_request_target" && !slices.Contains(p.Events, c.Event) && p.claims["event_name"] == nil {
		return errors.New("pull_request_target is not named")
	}
	if len(p.Events) > 0 && !slices.Contains(p.Events, c.Event) {
		return fmt.Errorf("event %q is not named", c.Event)
	}
	return nil
}

// rank orders the levels of a permission; 0 is none.
func rank(level string) int { return map[string]int{"read": 1, "write": 2, "admin": 3}[level] }

// narrowed is what both name, at the lower level.
func narrowed(wanted, ceiling map[string]string) map[string]string {
	both := map[string]string{}
	for name, level := range wanted {
		most := ceiling[name]
		switch {
		case rank(most) == 0:
		case rank(level) <= rank(most):
			both[name] = level
		default:
			both[name] = most
		}
	}
	return both
}
