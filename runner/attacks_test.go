package runner

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// credentialAttacks lists each way to a credential with what tries it: "PACKAGE TEST", or "PACKAGE TEST: ENTRY" for an entry of the escape suite. That
// these pass is for them to say; that none of them goes away unseen, for TestCredentialAttacks.
func credentialAttacks() map[string][]string {
	return map[string][]string{
		"in the environment":         {"runner TestEscapeNowhere: a token in the environment or arguments of any process", "runner TestEscapeSecrets: a credential in the environment, arguments and files of all processes"},
		"in arguments":               {"runner TestEscapeNowhere: a token in the environment or arguments of any process", "cmd/agent-sandbox TestRunRedacts"},
		"in memory":                  {"runner TestEscapeNowhere: a token in the memory of any process"},
		"in files":                   {"runner TestEscapeNowhere: a token in any file, also of the image", "runner TestEscapeSecrets: a credential in policy.json"},
		"in core dumps":              {"runner TestEscapeHost: a core file", "runner TestEscapeNowhere: a token in the memory of any process"}, // a dump is memory
		"in image layers":            {"runner TestEscapeNowhere: a token in what the engine has, of the container and of the image", "runner TestEscapeNowhere: a token in any file, also of the image"},
		"in docker inspect":          {"runner TestEscapeSecrets: a credential in docker inspect", "runner TestEscapeNowhere: a token in what the engine has, of the container and of the image"},
		"in logs, in every encoding": {"runner/secret TestEverySpellingIsRedacted", "runner/secret FuzzWriter", "runner TestEscapeNowhere: a token in logs, events, plan, change set and manifest", "cmd/agent-sandbox TestRunRedacts"},
		"in change set and manifest": {"runner TestEscapeNowhere: a token in logs, events, plan, change set and manifest"},
		"the placeholder elsewhere":  {"runner TestEscapeAllowed: the placeholder over raw TCP"},
		"another repository":         {"runner TestEscapeGitHub: another repository, by git", "runner TestEscapeGitHub: another repository, by the API", "runner TestEscapeGitHub: a push to another repository"},
		"a method beyond":            {"runner TestEscapeReadOnly: a method beyond the permission", "runner TestEscapeGitHub: a ref made by the API"},
		"a push outside the refs":    {"runner TestEscapeGitHub: a push outside the refs"},
		"use after the end":          {"runner TestEscapeNowhere: use after the end", "cmd/agent-sandbox TestIssuedToken", "cmd/agent-sandbox TestKilledToken", "runner/credential TestRevokeKept"},
		"renewal within a push":      {"runner TestRenewals: a renewal in the middle of a git push", "runner/credential TestRenewalWithinAPush"},
		"the job's own tokens":       {"runner TestEscapeSecrets: ACTIONS_RUNTIME_TOKEN and the id-token variables", "cmd/agent-sandbox TestRunEnvironment"},
		"checkout's credentials":     {"runner TestEscapeSecrets: the credential that a checkout stored", "runner/actions TestCheckCheckout", "cmd/agent-sandbox TestActionRefusesStoredCredential"},
	}
}

// TestCredentialAttacks: what the table names is there.
func TestCredentialAttacks(t *testing.T) { checkProofs(t, credentialAttacks()) }

func checkProofs(t *testing.T, attacks map[string][]string) {
	t.Helper()
	packages := map[string]*testPackage{}
	for attack, proofs := range attacks {
		for _, proof := range proofs {
			name, entry, _ := strings.Cut(proof, ": ")
			pkg, test, _ := strings.Cut(name, " ")
			if packages[pkg] == nil {
				packages[pkg] = parseTests(t, filepath.Join("..", filepath.FromSlash(pkg)))
			}
			if p := packages[pkg]; !p.functions[test] || entry != "" && !p.texts[entry] {
				t.Errorf("%s: there is no %s", attack, proof)
			}
		}
	}
}

// testPackage is what a package's tests have, whatever they are built for.
type testPackage struct{ functions, texts map[string]bool }

func parseTests(t *testing.T, dir string) *testPackage {
	t.Helper()
	p := &testPackage{map[string]bool{}, map[string]bool{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				p.functions[n.Name.Name] = n.Recv == nil
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					p.texts[text] = true
				}
			}
			return true
		})
	}
	return p
}
