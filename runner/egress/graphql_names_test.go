package egress

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
)

// What a query names is found in all the ways in which GitHub's own clients name it.
func TestNamesIn(t *testing.T) {
	for _, tt := range []struct{ query, variables, repositories, owners string }{
		{`{repository(owner:"acme", name:"shop"){id}}`, `{}`, "acme/shop", "acme"},
		{`query($owner:String!,$repo:String!){repository(owner: $owner, name: $repo){id}}`, `{"owner":"acme","repo":"shop"}`, "acme/shop", "acme"},
		{`{a: repository(name:"lib" owner:"globex"){id} b: repository(owner:"acme",name:"shop"){id}}`, `{}`, "globex/lib acme/shop", "globex acme"},
		{`{search(query:"is:pr repo:acme/shop org:globex", type:ISSUE){issueCount}}`, `{}`, "acme/shop", "globex"},
		{`query($q:String!){search(query:$q,type:ISSUE){issueCount}}`, `{"q":"repo:acme/shop"}`, "acme/shop", ""},
		{`{organization(login:"acme"){id}}`, `{}`, "", "acme"},
		{`mutation($input:X!){createPullRequest(input:$input){x}}`, `{"input":{"repositoryId":"R_kgDOAAAABw"}}`, "7", ""},
		{`mutation{closeIssue(input:{issueId:"I_kwDOAAAACM4AAAAB"}){x}}`, `{}`, "8", ""},
		{`mutation{addStar(input:{starrableId:"MDEwOlJlcG9zaXRvcnk3"}){x}}`, `{}`, "7", ""},
		{`mutation($input:X!){f(input:$input){x}}`, `{"input":{"branch":{"repositoryNameWithOwner":"acme/shop"}}}`, "acme/shop", ""},
		{"{# repository(owner:\"acme\",name:\"shop\")\nviewer{login}}", `{}`, "", ""},
		{`{f(body:"""a "quoted" owner:""", name: "x"){id}}`, `{}`, "", ""},
		{`{f(body:"repository(owner:\"acme\", name:\"shop\")"){id}}`, `{}`, "", ""},
		{`{node(id:"U_kgDOAAAABw"){id}}`, `{}`, "", ""},
		{`)))}}}"`, `{}`, "", ""},
		{strings.Repeat("(", 1000) + `owner:"acme",name:"shop"` + strings.Repeat(")", 1000), `{}`, "", ""},
		{`{repository(owner:$owner,name:$repo){id}}`, `[1]`, "", ""},
		{`{f(body:"""a \""" owner:"x" """){a:repository(owner:"acme",name:"shop"){id}}}`, `{}`, "acme/shop", "acme"},
		{`{f(body:"a \" owner:", x:""){a:repository(owner:"acme",name:"shop"){id}}}`, `{}`, "acme/shop", "acme"},
		// A string without an end is read to where it should be once: with a search from every quote these would take minutes.
		{`{repository(owner:"acme",name:"shop"){id}}` + strings.Repeat(`\"a`, maxQuery/4), `{}`, "acme/shop", "acme"},
		{`{repository(owner:"acme",name:"shop"){id}}"""` + strings.Repeat("\\\"\"\"\na", maxQuery/8), `{}`, "acme/shop", "acme"},
	} {
		got := namesIn(tt.query, []byte(`{"variables":`+tt.variables+`}`))
		var repositories []string
		for _, r := range got.repositories {
			if r.repository == "" {
				r.repository = fmt.Sprint(r.id)
			}
			repositories = append(repositories, r.repository)
		}
		if d := cmp.Diff(strings.Join(repositories, " ")+"; "+strings.Join(got.owners, " "), tt.repositories+"; "+tt.owners); d != "" {
			t.Errorf("%.200s with %s (-got +want)\n%s", tt.query, tt.variables, d)
		}
	}
}

// FuzzNamesInString: what stands in a string is the text of that string, and names nothing by arguments of its own.
func FuzzNamesInString(f *testing.F) {
	for _, s := range []string{"", `"`, `"){repository(owner:"acme",name:"shop"){id}}`, "repo:acme/shop", `\`, "\n#", `"""`, "R_kgDOAAAABw", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		quoted, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var want queryParser
		want.text(stringValue(string(quoted)))
		if got := namesIn("{f(body:"+string(quoted)+"){id}}", nil); !reflect.DeepEqual(got, want.found) {
			t.Errorf("%s names %+v, want %+v", quoted, got, want.found)
		}
	})
}

// TestGraphQLSeveral: of several tokens a query has the one for what it names, whatever placeholder it shows, and is held to the scope of that one.
func TestGraphQLSeveral(t *testing.T) {
	p, k := newPKI(t), &keeper{}
	b := p.backend("a.example", true, k.serve)
	of := func(id int64, name string, readOnly bool) Credential {
		return Credential{
			Name: "github (" + name + ")", Placeholder: placeholder, Value: fixed("ghs_" + name[strings.Index(name, "/")+1:]), Hosts: []policy.Host{mustHost(t, "a.example")},
			Scheme: Bearer, GitHub: &GitHub{Repositories: []GitHubRepository{{id, name}}, Scoped: true, ReadOnly: readOnly},
		}
	}
	s := p.inspecting("  allow: [{host: a.example, port: %d, private: true}]\n", b.port, of(7, "acme/docs", true), of(8, "globex/lib", false), of(9, "globex/app", false))
	agent := s.agent(true)
	for _, tt := range []struct{ query, variables, refused, want string }{
		{`{repository(owner:"acme",name:"docs"){id}}`, `{}`, "", "ghs_docs"},
		{`{repository(owner:"Globex",name:"Lib"){id}}`, `{}`, "", "ghs_lib"},
		{`query($o:String!,$n:String!){repository(owner:$o,name:$n){id}}`, `{"o":"globex","n":"app"}`, "", "ghs_app"},
		{`mutation{closeIssue(input:{issueId:"I_kwDOAAAACM4AAAAB"}){clientMutationId}}`, `{}`, "", "ghs_lib"},
		{`{a:repository(owner:"globex",name:"app"){id} b:repository(owner:"else",name:"where"){id}}`, `{}`, "", "ghs_app"},
		{`{organization(login:"globex"){id}}`, `{}`, "", "ghs_lib"},
		{`{viewer{login}}`, `{}`, "", "ghs_docs"},
		{`{a:repository(owner:"acme",name:"docs"){id} b:repository(owner:"globex",name:"lib"){id}}`, `{}`, "make a request for those of each", ""},
		{`mutation{addStar(input:{starrableId:"R_kgDOAAAABw"}){x}}`, `{}`, "no permission but to read", ""},
		{`mutation{addStar(input:{starrableId:"opaque"}){x}}`, `{}`, "name the owner and the repository in the query", ""},
		{`mutation{updateRef(input:{refId:"REF_kwDOAAAACKFh"}){x}}`, `{}`, "could change refs", ""},
	} {
		before := len(k.all())
		query, err := json.Marshal(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		resp, body := send(t, agent, "POST", fmt.Sprintf("https://a.example:%d/graphql", b.port), fmt.Sprintf(`{"query":%s,"variables":%s}`, query, tt.variables),
			"Authorization: bearer "+placeholder)
		seen := k.all()[before:]
		switch {
		case tt.refused != "":
			if resp.StatusCode != 403 || !strings.Contains(body, tt.refused) || len(seen) > 0 {
				t.Errorf("%s: %d %s; the host saw %v, want %q", tt.query, resp.StatusCode, body, seen, tt.refused)
			}
		case len(seen) != 1 || seen[0].Get("Authorization") != "Bearer "+tt.want:
			t.Errorf("%s: %d %s; the host saw %v, want %q", tt.query, resp.StatusCode, body, seen, tt.want)
		}
	}
}
