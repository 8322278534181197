package egress

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// checks are what a gateway refuses by beside the policy. They are functions because the escape suite leaves them out one by
// one, to show what each is for; see [Weakened].
type checks struct {
	name     func(string) (policy.Host, error)               // of names that are looked up
	address  func(policy.Verdict, netip.Addr) bool           // before it is dialled
	host     func(*request, policy.Host, uint16) *end        // of each request
	method   func(string) bool                               // of a request that is inspected
	patterns func([]Credential, []*Credential) []pattern     // of placeholders that go astray
	unscoped bool                                            // credentials of GitHub's reach every repository and ref
	echo     func(attachment) *secret.Set                    // what a body must not repeat
	redact   func(header http.Header, attached []attachment) // of answers
}

func allChecks() checks {
	return checks{
		name: parseName, address: policy.Verdict.PermitsAddress, host: (*request).checkHost, method: isPassedOn, patterns: patterns, redact: redact, echo: repeated,
	}
}

func repeated(a attachment) *secret.Set { return a.credential.echoes.of(a.credential, a.forms[0]) }

// isPassedOn is false for methods that are for proxies, that echo what was attached, or that change the protocol.
func isPassedOn(method string) bool {
	return isToken(method) && !slices.Contains([]string{"CONNECT", "TRACE", "TRACK", "PRI"}, strings.ToUpper(method))
}
