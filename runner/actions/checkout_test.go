package actions

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckCheckoutUnusual: a repository's directory can be a link, and a configuration is read within bounds.
func TestCheckCheckoutUnusual(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "kept", "config")
	if err := errors.Join(os.Mkdir(filepath.Dir(config), 0o755), os.Symlink("kept", filepath.Join(dir, ".git"))); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ text, want string }{
		{"[core]\n", ""},
		{"[http \"https://github.com/\"]\n\textraheader = AUTHORIZATION: basic c2VjcmV0\n", "a credential in .git/config,"},
		{strings.Repeat("#\n", maxGitConfig), ".git/config is longer than"},
	} {
		if err := os.WriteFile(config, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := CheckCheckout(dir); (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.80q: %v, want %q", tt.text, err, tt.want)
		}
	}
}

// TestCheckCheckout: a credential that a checkout stored is found wherever the agent would find it.
func TestCheckCheckout(t *testing.T) {
	const stored = "[http \"https://github.com/\"]\n\textraheader = AUTHORIZATION: basic c2VjcmV0\n"
	remote := func(url string) string { return "[remote \"origin\"]\n\turl = " + url + "\n" }
	for name, tt := range map[string]struct {
		files   map[string]string
		refused string // the file that is named; empty: it is fine
	}{
		"checkout's":                      {map[string]string{".git/config": stored}, ".git/config"},
		"another checkout's, beside":      {map[string]string{".git/config": remote("https://github.com/acme/shop"), "org/rules/.git/config": stored}, "org/rules/.git/config"},
		"another's in no repository":      {map[string]string{"shop/.git/config": stored}, "shop/.git/config"},
		"a submodule's":                   {map[string]string{".git/config": "", ".git/modules/logs/config": stored}, ".git/modules/logs/config"},
		"a worktree's":                    {map[string]string{".git/config.worktree": stored}, ".git/config.worktree"},
		"a token in the address":          {map[string]string{".git/config": remote("https://ghs_token@github.com/acme/shop")}, ".git/config"},
		"a password in the address":       {map[string]string{".git/config": remote("https://x:secret@github.com/acme/shop")}, ".git/config"},
		"an address of ssh":               {map[string]string{".git/config": remote("ssh://git@github.com/acme/shop")}, ""},
		"none":                            {map[string]string{".git/config": remote("https://github.com/acme/shop")}, ""},
		"a file of the project's":         {map[string]string{"docs/config": stored}, ""},
		"a linked worktree":               {map[string]string{".git": "gitdir: /elsewhere"}, ""},
		"no repository":                   {nil, ""},
		"a directory of the name":         {map[string]string{".git/refs/heads/config/x": "0123"}, ""},
		"a branch that is named like one": {map[string]string{".git/refs/heads/config": "0123"}, ""},
	} {
		dir := t.TempDir()
		for file, text := range tt.files {
			path := filepath.Join(dir, filepath.FromSlash(file))
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := CheckCheckout(dir)
		if (err != nil) != (tt.refused != "") || err != nil && !strings.Contains(err.Error(), " in "+tt.refused+",") {
			t.Errorf("%s: %v, want a refusal of %q", name, err, tt.refused)
		}
	}
}
