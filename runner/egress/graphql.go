package egress

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
)

// maxQuery bounds the body of a GraphQL request in bytes.
const maxQuery = 1 << 20

// changesRefs are the mutations of GitHub's GraphQL that change refs: https://docs.github.com/en/graphql/reference/mutations.
func changesRefs() []string {
	return []string{
		"createcommitonbranch", "createref", "updateref", "updaterefs", "deleteref", "mergebranch", "mergepullrequest", "updatepullrequestbranch",
		"enablepullrequestautomerge", "enqueuepullrequest", "revertpullrequest", "createlinkedbranch", "transferrepository",
		"createdeployment", // merges the default branch, unless it is told not to
	}
}

// checkGraphQL refuses mutations that would change refs past what is checked of a push. Names have no escapes in GraphQL, so what
// is not in the text is not in the query.
func (x *exchange) checkGraphQL() *end {
	if x.scope == nil || !x.isGraphQL() {
		return nil
	}
	query, e := x.readQuery()
	if e != nil {
		return e
	}
	names := strings.FieldsFunc(strings.ToLower(query), func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	for _, name := range names {
		if x.scope.ReadOnly && name == "mutation" {
			return refuse(CodePermission, "the mutation would change something, and the credential has no permission but to read"+x.unnamed)
		}
		if slices.Contains(changesRefs(), name) {
			return refuse(CodeRef, "the mutation could change refs; push instead, to "+x.scope.allowed())
		}
	}
	return nil
}

func (x *exchange) isGraphQL() bool {
	return x.r.Method == http.MethodPost && strings.HasSuffix(strings.ToLower(x.path), "/graphql")
}

// readQuery reads the body, which then is what was read.
func (x *exchange) readQuery() (query string, e *end) {
	body := x.taken
	if body == nil {
		var err error
		if body, err = io.ReadAll(io.LimitReader(x.r.Body, maxQuery+1)); err != nil {
			return "", broken(CodeBroken, "the agent broke off")
		}
	}
	query, ok := textOf(body, "query")
	if len(x.r.Header["Content-Encoding"]) > 0 || x.query != "" || len(body) > maxQuery || !ok {
		return "", refuse(CodeRef, "the GraphQL request can't be read: it has to be one JSON object with a query of at most 1 MiB")
	}
	x.taken = body
	x.r.Header["Content-Type"] = []string{"application/json"} // as it was read: the same text can be a form with another query
	return query, nil
}

// textOf is one text of a JSON object. An object that has two, in whatever case, has two readings.
func textOf(body []byte, field string) (text string, ok bool) {
	d := json.NewDecoder(bytes.NewReader(body))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return "", false
	}
	for d.More() {
		key, err := d.Token()
		name, _ := key.(string)
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			return "", false
		}
		if !strings.EqualFold(name, field) {
			continue
		}
		if ok || name != field || json.Unmarshal(value, &text) != nil {
			return "", false
		}
		ok = true
	}
	_, err := d.Token()
	return text, ok && err == nil && text != "" && len(bytes.TrimSpace(body[d.InputOffset():])) == 0
}
