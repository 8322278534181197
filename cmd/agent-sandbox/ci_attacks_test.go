package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ciAttack is an attack on a job, and the tests in which it fails beside a control that works. Those of the command, but this one, need an engine.
type ciAttack struct {
	attack string
	tests  []string // DIRECTORY.TestName
}

// ciAttacks is the list that a reader can tick off.
func ciAttacks() []ciAttack {
	return []ciAttack{
		{"outputs forged through a heredoc's delimiter", []string{"runner/actions.TestOutputsCanNotBeForged", "cmd/agent-sandbox.TestActionHostileOutput"}},
		{"workflow commands in the agent's output", []string{"runner/actions.TestAgentCanNotCommandTheRunner", "cmd/agent-sandbox.TestActionHostileOutput", "cmd/agent-sandbox.TestActionRunsUnderAct"}},
		{"markdown and HTML in the summary", []string{"runner/actions.TestSummaryCarriesNoMarkup", "cmd/agent-sandbox.TestActionHostileFileNames", "runner/manifest.TestMarkdownTakesNoMarkup"}},
		{"terminal escape codes", []string{"runner/actions.TestAgentOutputIsShowable", "cmd/agent-sandbox.TestActionHostileOutput", "runner/event.TestPrintable"}},
		{"forged log lines", []string{"cmd/agent-sandbox.TestActionHostileOutput", "runner/event.TestVerifyForgedLine", "cmd/agent-sandbox.TestManifestAttacks"}},
		{"a policy, lock or ceiling edited in the pull request that it governs", []string{"cmd/agent-sandbox.TestActionPolicyIsOfTheBase", "cmd/agent-sandbox.TestActionRulesAreOfTheBase", "runner/actions.TestReadCommitted"}},
		{"hostile names of branches", []string{"cmd/agent-sandbox.TestActionHostileBranches", "runner/workspace.TestPushRefused"}},
		{"hostile names of files", []string{"cmd/agent-sandbox.TestActionHostileFileNames", "runner/actions.TestAnnotationIsOneCommand"}},
		{"a push beyond the branches of the policy", []string{"cmd/agent-sandbox.TestActionPushRefused"}},
		{"git's configuration of the agent's in a push", []string{"cmd/agent-sandbox.TestActionPushes", "runner/workspace.TestPush"}},
		{"the runner's secrets, files and engine", []string{"cmd/agent-sandbox.TestActionKeepsTheRunnersSecrets"}},
		{"the credential that a checkout stored", []string{"cmd/agent-sandbox.TestActionRefusesStoredCredential", "runner/actions.TestCheckCheckout", "runner.TestEscapeSecrets"}},
		{"what a cancelled job leaves behind", []string{"cmd/agent-sandbox.TestActionCancelled"}},
		{"a manifest edited after signing", []string{"runner/manifest.TestVerifyTampered"}},
		{"a truncated or reordered event log", []string{"runner/event.TestVerifyFindsTampering", "runner/event.TestVerifyLogCutAnywhere"}},
		{"a log or a manifest of another run", []string{"runner/event.TestVerifyOtherRun", "runner/manifest.TestVerify"}},
	}
}

// TestCIAttacksAreTested: every attack has tests, and those exist.
func TestCIAttacksAreTested(t *testing.T) {
	found := testNames(t, "../..")
	for _, a := range ciAttacks() {
		if len(a.tests) == 0 {
			t.Errorf("%s: no test", a.attack)
		}
		for _, name := range a.tests {
			if !slices.Contains(found, name) {
				t.Errorf("%s: there is no test %s", a.attack, name)
			}
		}
		t.Logf("%-55s %s", a.attack, strings.Join(a.tests, " "))
	}
}

// testNames are the test functions of the module, as DIRECTORY.TestName, whatever their build tags.
func testNames(t *testing.T, root string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "bin" || d.Name() == "var" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") && p != root:
			return fs.SkipDir
		case !strings.HasSuffix(p, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(p))
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				names = append(names, filepath.ToSlash(dir)+"."+f.Name.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
