package workspace

import (
	"fmt"
	"testing"
	"time"
)

func changeOf(kind Kind, path, content string) Change {
	n := &Node{Type: File, Mode: 0o644, Size: int64(len(content)), SHA256: hashString(content)}
	c := Change{Path: path, Kind: kind, Git: inGit(path)}
	if kind == Deleted {
		c.Old = n
	} else {
		c.New = n
	}
	return c
}

func TestFindRenames(t *testing.T) {
	del := func(path, content string) Change { return changeOf(Deleted, path, content) }
	add := func(path, content string) Change { return changeOf(Added, path, content) }
	for _, tt := range []struct {
		name    string
		changes []Change
		origin  map[string]string
		want    string
	}{
		{"same content", []Change{del("a", "1"), add("b", "1")}, nil, "renamed a -> b"},
		{"other content", []Change{del("a", "1"), add("b", "2")}, nil, "deleted a\nadded b"},
		{"a copy besides", []Change{del("a", "1"), add("b", "1"), add("c", "1")}, nil, "renamed a -> b\nadded c"},
		{"the same name first", []Change{add("b", "1"), del("x/k", "1"), add("y/k", "1")}, nil, "added b\nrenamed x/k -> y/k"},
		{"what is known first", []Change{del("a", "1"), del("b", "1"), add("z", "1")}, map[string]string{"z": "b"}, "deleted a\nrenamed b -> z"},
		{"what is known before the same name", []Change{del("p/k", "1"), add("q/k", "1"), add("r/x", "1")}, map[string]string{"r/x": "p/k"}, "added q/k\nrenamed p/k -> r/x"},
		{"empty files", []Change{del("a", ""), add("b", "")}, nil, "deleted a\nadded b"},
		{"empty files of which it is known", []Change{del("a", ""), add("b", "")}, map[string]string{"b": "a"}, "renamed a -> b"},
		{"known, but still there", []Change{add("b", "1")}, map[string]string{"b": "a"}, "added b"},
		{"into .git", []Change{add(".git/x", "1"), del("a", "1")}, nil, "added .git/x\ndeleted a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := findRenames(tt.changes, func(p string) string { return tt.origin[p] })
			if got := describe(&ChangeSet{Changes: got}); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestFindRenamesLeavesOutWhatIsRejected(t *testing.T) {
	hidden := changeOf(Added, ".env", "1")
	hidden.Tier = Reject
	got := findRenames([]Change{hidden, changeOf(Deleted, "a", "1")}, func(string) string { return "" })
	if len(got) != 2 {
		t.Errorf("got %d changes, want the rejected one and the other apart", len(got))
	}
}

// An agent can have a hundred thousand files of the same content moved about.
func TestFindRenamesIsNotQuadratic(t *testing.T) {
	var changes []Change
	for i := range 100_000 {
		changes = append(changes, changeOf(Deleted, fmt.Sprintf("a/%06d", i), "1"))
	}
	for i := range 100_000 {
		changes = append(changes, changeOf(Added, fmt.Sprintf("b/x%06d", i), "1"))
	}
	start := time.Now()
	if got := findRenames(changes, func(string) string { return "" }); len(got) != 100_000 {
		t.Errorf("got %d changes, want every deletion joined to an addition", len(got))
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}
