package workspace

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/org/agent-sandbox/policy"
)

// matcherOf is a pattern set as the policy file would give.
func matcherOf(t testing.TB, patterns ...string) *policy.PatternSet {
	t.Helper()
	var all []policy.Pattern
	for _, text := range patterns {
		p, err := policy.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return policy.NewPatternSet(all)
}

// prepare makes a view with a state directory of its own, and drops it at the end.
func prepare(t testing.TB, cfg Config) *View {
	t.Helper()
	v, err := Prepare(t.Context(), withTestDefaults(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Discard(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func withTestDefaults(t testing.TB, cfg Config) Config {
	if cfg.StateDir == "" {
		cfg.StateDir = t.TempDir()
	}
	if cfg.Hide == nil {
		cfg.Hide = matcherOf(t)
	}
	if cfg.Protect == nil {
		cfg.Protect = matcherOf(t)
	}
	return cfg
}

// populate makes the files of a listing, each "path" or "path=content" or "path@target" or "path/".
func populate(t testing.TB, dir string, listing ...string) {
	t.Helper()
	for _, line := range listing {
		name, content, _ := strings.Cut(line, "=")
		name, target, isLink := strings.Cut(name, "@")
		p := filepath.Join(dir, filepath.FromSlash(name))
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		switch {
		case err != nil:
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(p, 0o755)
		case isLink:
			err = os.Symlink(target, p)
		default:
			err = os.WriteFile(p, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// describe writes a change set in lines, such as "renamed a -> b".
func describe(cs *ChangeSet) string {
	lines := make([]string, 0, len(cs.Changes))
	for i := range cs.Changes {
		c := &cs.Changes[i]
		line := fmt.Sprintf("%s %s", c.Kind, c.Path)
		if c.From != "" {
			line = fmt.Sprintf("%s %s -> %s", c.Kind, c.From, c.Path)
		}
		if c.Tier != NoTier {
			line += fmt.Sprintf(" (%s: %s)", c.Tier, c.Reason)
		}
		if c.HostChanged {
			line += " (host changed)"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// reference applies a change set to a state in the plainest way: removals, then all that is new. Changes that
// meet hidden paths are left out.
func reference(t testing.TB, v *View, cs *ChangeSet, before treeState) treeState {
	t.Helper()
	after := treeState{}
	for p, e := range before {
		after[p] = e
	}
	for i := range cs.Changes {
		c := &cs.Changes[i]
		if c.Tier == Reject {
			continue
		}
		for _, p := range []string{c.Path, c.From} {
			delete(after, p)
		}
	}
	for i := range cs.Changes {
		c := &cs.Changes[i]
		if c.Tier == Reject || c.New == nil {
			continue
		}
		e := treeEntry{Node: *c.New}
		if c.New.Type == File {
			e.Content = contentOf(t, v, c, before)
		}
		if c.New.Type == Symlink {
			e.Mode = 0 // as readTree has it
		}
		after[c.Path] = e
	}
	return after
}

func contentOf(t testing.TB, v *View, c *Change, before treeState) string {
	t.Helper()
	if !c.needsBlob() {
		from := c.Path
		if c.From != "" {
			from = c.From
		}
		if before[from].SHA256 != c.New.SHA256 {
			t.Fatalf("%s %q: the host has other content", c.Kind, c.Path)
		}
		return before[from].Content
	}
	data := readBlob(t, (&ChangeSet{Changes: []Change{*c}}).Blobs(v.cfg.StateDir), c.New.SHA256)
	if hashString(data) != c.New.SHA256 || int64(len(data)) != c.New.Size {
		t.Fatalf("blob of %q is damaged", c.Path)
	}
	return data
}

func readBlob(t testing.TB, blobs Blobs, sum string) string {
	t.Helper()
	r, err := blobs.Open(sum)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// cmpSorted compares lists of strings as sets.
func cmpSorted() cmp.Option {
	return cmpopts.SortSlices(func(a, b string) bool { return a < b })
}
