package egress

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// checkRelease holds releases to the refs that may be pushed: GitHub makes a release's tag where there is none, of any commit
// (https://docs.github.com/en/rest/releases/releases), and a tag can set a workflow going.
func (x *exchange) checkRelease() *end {
	if x.scope == nil || !namesTag(x.r.Method, locate(x.path, false).rest) {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(x.r.Body, maxQuery+1))
	tag, ok := textOf(body, "tag_name")
	ref := "refs/tags/" + tag
	switch {
	case err != nil:
		return broken(CodeBroken, "the agent broke off")
	case len(x.r.Header["Content-Encoding"]) > 0, x.query != "", len(body) > maxQuery, !ok:
		return refuse(CodeRef, "the release can't be read: it has to be one JSON object with a tag_name, of at most 1 MiB")
	case !isRef(ref), strings.HasPrefix(tag, "refs/"), !x.scope.mayPush(ref):
		return refuse(CodeRef, fmt.Sprintf("a release makes its tag, and %s may not be pushed; allowed: %s", printable(ref), x.scope.allowed()))
	}
	x.taken = body
	x.r.Header["Content-Type"] = []string{"application/json"} // as it was read
	return nil
}

// namesTag tells whether a request makes a release or changes one. What is below a release has no tag.
func namesTag(method string, rest []string) bool {
	return !slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodDelete}, method) && len(rest) > 0 && len(rest) < 3 &&
		strings.EqualFold(strings.TrimSuffix(strings.ToLower(rest[0]), ".json"), "releases") && (len(rest) == 1 || !strings.EqualFold(rest[1], "generate-notes"))
}
