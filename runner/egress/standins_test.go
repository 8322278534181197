package egress

import (
	"fmt"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

// TestStandIns: headers that stand for another method or path are refused where those are looked at, and nowhere else.
func TestStandIns(t *testing.T) {
	p, k := newPKI(t), &keeper{}
	b := p.backend("a.example", true, k.serve)
	plain, ruled, gitHub := token(t, "a.example"), token(t, "a.example"), token(t, "a.example")
	rule, err := policy.ParseHTTPRule("POST /repos/**")
	if err != nil {
		t.Fatal(err)
	}
	ruled.Rules = []policy.HTTPRule{rule}
	gitHub.GitHub = shopScope("refs/heads/agent/*")
	for _, on := range []struct {
		name, rules string
		credential  Credential
		free        bool
	}{
		{"rules of the policy", `, rules: ["POST /repos/**"]`, plain, false},
		{"rules of a credential", "", ruled, false},
		{"a scope of GitHub's", "", gitHub, false},
		{"no rules", "", plain, true},
	} {
		s := p.inspecting("  allow: [{host: a.example, port: %d, private: true"+on.rules+"}]\n", b.port, on.credential)
		for _, header := range []string{
			"X-Http-Method-Override: DELETE", "X_HTTP_METHOD_OVERRIDE: DELETE", "X-Http-Method: PATCH", "X-Method-Override: put", "X-Original-Url: /closed", "X-Rewrite-Url: /closed", "",
			"X-Http-Method-Override: POST",
		} {
			before := len(k.all())
			var more []string
			if header != "" {
				more = []string{header}
			}
			resp, body := send(t, s.agent(true), "POST", fmt.Sprintf("https://a.example:%d/repos/acme/shop/issues", b.port), "{}", more...)
			passed := on.free || header == "" || strings.HasSuffix(header, " POST")
			if seen := len(k.all()) > before; seen != passed || !passed && (resp.StatusCode != 403 || !strings.Contains(body, `"code":"`+string(policy.CodeBadRequest)+`"`)) {
				t.Errorf("%s, %q: %d %s; arrived: %t", on.name, header, resp.StatusCode, body, seen)
			}
		}
	}
}
