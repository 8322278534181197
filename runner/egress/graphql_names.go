package egress

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// judgeQuery narrows the credentials down to those for the repositories that a GraphQL request names. What the agent writes there decides only which
// of its own credentials is used, and it is held to the scope of that one.
func (x *exchange) judgeQuery() *end {
	query, e := x.readQuery()
	if e != nil {
		return e
	}
	named := namesIn(query, x.taken)
	fits := func(c *Credential) bool { return named.within(c.GitHub, x.judges) }
	if !slices.ContainsFunc(x.judges, func(c *Credential) bool { return named.touches(c.GitHub) }) {
		x.unnamed = fmt.Sprintf("; it names no repository of %s, so it has the credential %s: name the owner and the repository in the query, or the repository's id",
			scopes(x.judges), x.judges[0].Name)
		return nil
	}
	if i := slices.IndexFunc(x.judges, fits); i >= 0 {
		x.judges = x.judges[i : i+1]
		return nil
	}
	return refuse(CodeRepository, fmt.Sprintf("the query names repositories of several credentials, which are for %s: make a request for those of each", scopes(x.judges)))
}

// scopes are the repositories of each credential.
func scopes(credentials []*Credential) string {
	var all []string
	for _, c := range credentials {
		all = append(all, c.GitHub.names())
	}
	return strings.Join(slices.Compact(all), "; ")
}

// queryNames are the repositories that a GraphQL request names, and the owners: the latter count where there are none of the former.
type queryNames struct {
	repositories []gitTarget
	owners       []string
}

// touches tells whether something of the scope is named.
func (n queryNames) touches(g *GitHub) bool {
	return slices.ContainsFunc(n.repositories, g.has) || slices.ContainsFunc(n.owners, g.owns)
}

// within tells whether what is named is all of the scope, apart from what is of no credential's: that has to be public.
func (n queryNames) within(g *GitHub, all []*Credential) bool {
	known := func(t gitTarget) bool {
		return slices.ContainsFunc(all, func(c *Credential) bool { return c.GitHub.has(t) })
	}
	several := slices.ContainsFunc(n.repositories, func(t gitTarget) bool { return known(t) && !g.has(t) })
	if several || slices.ContainsFunc(n.repositories, g.has) {
		return !several
	}
	return slices.ContainsFunc(n.owners, g.owns)
}

// owns tells whether a repository of the scope is the owner's.
func (g *GitHub) owns(owner string) bool {
	return slices.ContainsFunc(g.Repositories, func(r GitHubRepository) bool {
		of, _, _ := strings.Cut(r.Name, "/")
		return equalFold(of, owner)
	})
}

// namesIn finds them in arguments (owner and name, login), in the qualifiers of a search, and in the ids of GitHub's objects.
func namesIn(query string, body []byte) queryNames {
	var request struct {
		Variables map[string]any `json:"variables"`
	}
	_ = json.Unmarshal(body, &request) // variables that can't be read name nothing
	p := &queryParser{variables: request.Variables}
	p.parse(query)
	for _, v := range request.Variables {
		p.value(v)
	}
	return p.found
}

// value looks into a variable: an input object has the same names as arguments.
func (p *queryParser) value(v any) {
	switch v := v.(type) {
	case string:
		p.text(v)
	case []any:
		for _, e := range v {
			p.value(e)
		}
	case map[string]any:
		args := map[string]string{}
		for name, e := range v {
			if s, ok := e.(string); ok {
				args[name] = s
			}
			p.value(e)
		}
		p.arguments(args)
	}
}

var qualifier = regexp.MustCompile(`(?i)(?:^|[\s("])(repo|org|user):"?([a-z0-9-]+)(/[a-z0-9._-]+)?`)

// text looks into one text: a search, or an id.
func (p *queryParser) text(s string) {
	for _, m := range qualifier.FindAllStringSubmatch(s, -1) {
		switch {
		case m[3] != "":
			p.found.repositories = append(p.found.repositories, gitTarget{repository: m[2] + m[3]})
		case !strings.EqualFold(m[1], "repo"):
			p.found.owners = append(p.found.owners, m[2])
		}
	}
	if id := nodeRepository(s); id > 0 {
		p.found.repositories = append(p.found.repositories, gitTarget{id: id})
	}
}

// arguments are those of one field, or an input object.
func (p *queryParser) arguments(args map[string]string) {
	for _, name := range []string{"name", "repo", "repositoryName"} {
		if args["owner"] != "" && args[name] != "" {
			p.found.repositories = append(p.found.repositories, gitTarget{repository: args["owner"] + "/" + args[name]})
		}
	}
	if s := args["repositoryNameWithOwner"]; s != "" { // of createCommitOnBranch, and its like
		p.found.repositories = append(p.found.repositories, gitTarget{repository: s})
	}
	for _, name := range []string{"login", "owner"} {
		if args[name] != "" {
			p.found.owners = append(p.found.owners, args[name])
		}
	}
}

const maxNodeID = 256

// nodeRepository is the number of the repository that an object's id has in it, 0 if it has none. GitHub documents ids as opaque
// (https://docs.github.com/en/graphql/guides/using-global-node-ids). They are a MessagePack array behind a prefix: 0 and the number of a
// repository, and of what is in one also that of the thing; the older ones are a text, "010:Repository1296269". One that is read wrongly has the
// number of no repository of ours.
func nodeRepository(id string) int64 {
	if len(id) > maxNodeID {
		return 0
	}
	kind, encoded, ok := strings.Cut(id, "_")
	if !ok {
		text, err := base64.StdEncoding.DecodeString(id)
		_, number, found := strings.Cut(string(text), ":Repository")
		if n, parseErr := strconv.ParseInt(number, 10, 64); err == nil && found && parseErr == nil {
			return n
		}
		return 0
	}
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(encoded, "="))
	if err != nil || len(data) < 3 || data[1] != 0 || data[0] != 0x93 && (data[0] != 0x92 || kind != "R") {
		return 0
	}
	return msgpackNumber(data[2:])
}

// msgpackNumber reads an unsigned number (https://github.com/msgpack/msgpack/blob/master/spec.md).
func msgpackNumber(data []byte) int64 {
	sizes := map[byte]int{0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8}
	n, ok := sizes[data[0]]
	switch {
	case data[0] < 0x80:
		return int64(data[0])
	case !ok || len(data) <= n:
		return 0
	}
	number := binary.BigEndian.Uint64(append(bytes.Repeat([]byte{0}, 8-n), data[1:1+n]...))
	return max(int64(number), 0) //nolint:gosec // one that does not fit is negative, so 0
}
