package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

// pages are the texts for people, by their paths from here.
func pages(t *testing.T) map[string]string {
	t.Helper()
	root := filepath.Join("..", "..")
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", ".github/*.md", ".github/examples/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(names), err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			texts[name] = string(b)
		}
	}
	return texts
}

// TestDocsPolicies: what the pages show of a policy is one.
func TestDocsPolicies(t *testing.T) {
	block := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	begins := regexp.MustCompile(`^(version|image|agent|network|credentials|evidence|caches):`)
	checked := 0
	for name, text := range pages(t) {
		for _, m := range block.FindAllStringSubmatch(text, -1) {
			source := m[1]
			if !begins.MatchString(source) {
				continue
			}
			if !strings.HasPrefix(source, "version:") {
				source = "version: 1\n" + source
			}
			if _, err := policy.Load(name, []byte(source)); err != nil {
				t.Errorf("%v\n%s", err, source)
			}
			checked++
		}
	}
	if checked < 10 {
		t.Errorf("only %d policies are in the pages", checked)
	}
}

// TestDocsLinks: every file that a page names by a link is there.
func TestDocsLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)\)`)
	for name, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
