package credential

import (
	"strings"

	"github.com/org/agent-sandbox/policy"
)

// maxPieces bounds the tokens of one credential. Each is issued before the agent starts and revoked at the end, and brokers limit the exchanges of a job.
const maxPieces = 20

// piece is a credential of the policy, or the part of one that has a token of its own.
type piece struct {
	policy.Credential        // with the part's repositories
	part              string // the repository or the owner that it is for; empty: there are no others
}

// split gives each token a piece: a broker issues one for a repository at a time, and GitHub one for the repositories of one owner. On the wire the repository
// in a request's path tells which of them it gets.
func split(c policy.Credential) []piece {
	if !isGitHub(c) {
		return []piece{{Credential: c}}
	}
	var all []piece
	for _, name := range c.Repositories {
		part := name
		if c.From.Kind == "github-app" {
			part, _, _ = strings.Cut(name, "/")
		}
		p := pieceOf(&all, c, part)
		if !containsFold(p.Repositories, name) {
			p.Repositories = append(p.Repositories, name)
		}
	}
	if len(all) == 1 {
		all[0].part = ""
	}
	return all
}

// pieceOf finds a part, or adds it without repositories.
func pieceOf(all *[]piece, c policy.Credential, part string) *piece {
	for i := range *all {
		if strings.EqualFold((*all)[i].part, part) {
			return &(*all)[i]
		}
	}
	c.Repositories = nil
	*all = append(*all, piece{c, part})
	return &(*all)[len(*all)-1]
}

// label is what the record calls it.
func label(name, part string) string {
	if part == "" {
		return name
	}
	return name + " (" + part + ")"
}
