package egress

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// lfsBatch is where git LFS asks for the places of large files
// (https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md).
const lfsBatch = "info/lfs/objects/batch"

// checkLFS lets large files be fetched, and pushed where anything may be: an upload changes no ref, but what it leaves can be read from one.
func (x *exchange) checkLFS() *end {
	if x.scope == nil || x.r.Method != http.MethodPost || !strings.HasSuffix(x.path, "/"+lfsBatch) {
		return nil
	}
	x.plain = true
	body, err := io.ReadAll(io.LimitReader(x.r.Body, maxQuery+1))
	operation, ok := textOf(body, "operation")
	switch {
	case err != nil:
		return broken(CodeBroken, "the agent broke off")
	case len(x.r.Header["Content-Encoding"]) > 0, len(body) > maxQuery, !ok:
		return refuse(CodeRef, "the request for large files can't be read: it has to be one JSON object with an operation, of at most 1 MiB")
	case operation == "upload" && len(x.scope.Push) == 0:
		return refuse(CodeRef, "the policy allows no push, and so no upload of large files: `push:` of the credential names no refs")
	case operation != "upload" && operation != "download":
		return refuse(CodeRef, "the request for large files is for neither a download nor an upload")
	}
	x.taken = body
	return nil
}

// lfsRefusal is what git LFS shows of an error.
func lfsRefusal(reason string) (body []byte, kind string) {
	body, _ = json.Marshal(map[string]string{"message": "agent-sandbox: " + reason}) // two texts always marshal
	return body, "application/vnd.git-lfs+json"
}
