package runnertest

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

func refEndpoints() []endpoint {
	return []endpoint{
		{"GET /repos/{owner}/{repo}/git/ref/{ref...}", byToken, "contents=read", (*call).ref},
		{"GET /repos/{owner}/{repo}/git/matching-refs/{ref...}", byToken, "contents=read", (*call).matchingRefs},
		{"GET /repos/{owner}/{repo}/branches/{branch...}", byToken, "contents=read", (*call).branch},
		{"POST /repos/{owner}/{repo}/git/refs", byToken, "contents=write", (*call).createRef},
		{"PATCH /repos/{owner}/{repo}/git/refs/{ref...}", byToken, "contents=write", (*call).updateRef},
		{"DELETE /repos/{owner}/{repo}/git/refs/{ref...}", byToken, "contents=write", (*call).deleteRef},

		{"GET /repos/{owner}/{repo}/pulls", byToken, "pull_requests=read", (*call).listPulls},
		{"GET /repos/{owner}/{repo}/pulls/{number}", byToken, "pull_requests=read", (*call).pull},
		{"POST /repos/{owner}/{repo}/pulls", byToken, "pull_requests=write", (*call).createPull},
	}
}

func refJSON(name, sha string) map[string]any {
	return map[string]any{"ref": name, "object": map[string]any{"type": "commit", "sha": sha}}
}

func (c *call) ref() {
	r := c.repository("contents", "read")
	if r == nil {
		return
	}
	name := "refs/" + c.value("ref")
	sha := r.Ref(name)
	if sha == "" {
		c.fail(http.StatusNotFound, "Not Found")
		return
	}
	c.answer(200, refJSON(name, sha))
}

func (c *call) matchingRefs() {
	r := c.repository("contents", "read")
	if r == nil {
		return
	}
	list := []any{}
	for line := range strings.Lines(r.git("", "-C", r.Dir, "for-each-ref", "--format=%(refname) %(objectname)")) {
		name, sha, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(name, "refs/"+c.value("ref")) {
			list = append(list, refJSON(name, sha))
		}
	}
	c.answer(200, list)
}

func (c *call) branch() {
	r := c.repository("contents", "read")
	if r == nil {
		return
	}
	sha := r.Ref("refs/heads/" + c.value("branch"))
	if sha == "" {
		c.fail(http.StatusNotFound, "Branch not found")
		return
	}
	c.answer(200, map[string]any{"name": c.value("branch"), "commit": map[string]any{"sha": sha}, "protected": false})
}

func (c *call) createRef() {
	r := c.repository("contents", "write")
	var req struct{ Ref, SHA string }
	if r == nil || !c.read(&req) {
		return
	}
	switch {
	case !strings.HasPrefix(req.Ref, "refs/") || strings.Count(req.Ref, "/") < 2:
		c.fail(http.StatusUnprocessableEntity, "Reference name must start with 'refs' and have at least two slashes.")
	case r.Ref(req.Ref) != "":
		c.fail(http.StatusUnprocessableEntity, "Reference already exists")
	default:
		c.setRef(r, http.StatusCreated, req.Ref, req.SHA)
	}
}

func (c *call) updateRef() {
	r := c.repository("contents", "write")
	var req struct {
		SHA   string
		Force bool
	}
	if r == nil || !c.read(&req) {
		return
	}
	name := "refs/" + c.value("ref")
	old := r.Ref(name)
	if old == "" {
		c.fail(http.StatusUnprocessableEntity, "Reference does not exist")
		return
	}
	if !req.Force && r.command("-C", r.Dir, "merge-base", "--is-ancestor", old, req.SHA).Run() != nil {
		c.fail(http.StatusUnprocessableEntity, "Update is not a fast forward")
		return
	}
	c.setRef(r, http.StatusOK, name, req.SHA)
}

func (c *call) setRef(r *Repository, status int, name, sha string) {
	if r.command("-C", r.Dir, "update-ref", name, sha).Run() != nil {
		c.fail(http.StatusUnprocessableEntity, "Object does not exist")
		return
	}
	r.files = map[string][]byte{}
	c.answer(status, refJSON(name, sha))
}

func (c *call) deleteRef() {
	r := c.repository("contents", "write")
	if r == nil {
		return
	}
	name := "refs/" + c.value("ref")
	if r.Ref(name) == "" {
		c.fail(http.StatusUnprocessableEntity, "Reference does not exist")
		return
	}
	r.git("", "-C", r.Dir, "update-ref", "-d", name)
	r.files = map[string][]byte{}
	c.w.WriteHeader(http.StatusNoContent)
}

func (c *call) listPulls() {
	r := c.repository("pull_requests", "read")
	if r == nil {
		return
	}
	state := c.r.URL.Query().Get("state")
	if state == "" {
		state = "open"
	}
	head := c.r.URL.Query().Get("head")
	list := slices.DeleteFunc(slices.Clone(r.pulls), func(p map[string]any) bool {
		return state != "all" && p["state"] != state || head != "" && p["head"].(map[string]any)["label"] != head
	})
	c.answer(200, append([]map[string]any{}, list...))
}

func (c *call) pull() {
	r := c.repository("pull_requests", "read")
	if r == nil {
		return
	}
	for _, p := range r.pulls {
		if p["number"] == atoi(c.value("number")) {
			c.answer(200, p)
			return
		}
	}
	c.fail(http.StatusNotFound, "Not Found")
}

func (c *call) createPull() {
	r := c.repository("pull_requests", "write")
	var req struct {
		Title, Head, Base, Body    string
		Draft, MaintainerCanModify *bool
		Maintainer                 *bool `json:"maintainer_can_modify"`
	}
	if r == nil || !c.read(&req) {
		return
	}
	branch := req.Head[strings.Index(req.Head, ":")+1:]
	head, base := r.Ref("refs/heads/"+branch), r.Ref("refs/heads/"+req.Base)
	switch {
	case req.Title == "" || head == "" || base == "":
		c.fail(http.StatusUnprocessableEntity, "Validation Failed")
		return
	case head == base:
		c.fail(http.StatusUnprocessableEntity, "No commits between "+req.Base+" and "+branch)
		return
	}
	number := len(r.pulls) + len(r.issues) + 1
	pull := map[string]any{
		"number": number, "id": c.g.id(), "state": "open", "title": req.Title, "body": req.Body, "draft": req.Draft != nil && *req.Draft,
		"html_url": c.g.URL + "/" + r.FullName() + "/pull/" + itoa(number), "created_at": c.g.now().Format(time.RFC3339),
		"head": map[string]any{"ref": branch, "sha": head, "label": r.Owner + ":" + branch, "repo": c.g.repositoryJSON(r)},
		"base": map[string]any{"ref": req.Base, "sha": base, "label": r.Owner + ":" + req.Base, "repo": c.g.repositoryJSON(r)},
	}
	r.pulls = append(r.pulls, pull)
	c.answer(http.StatusCreated, pull)
}
