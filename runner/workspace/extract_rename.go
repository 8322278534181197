package workspace

import "path"

// findRenames joins a deleted and an added file, or symlink, of the same content to one renamed change, as git does
// with exact matches. Empty files say nothing of where they come from, and are joined only if origin knows. changes must be
// sorted; origin gives the path on the host from which the content of an added path comes, or "".
func findRenames(changes []Change, origin func(path string) string) []Change {
	p := pairing{changes: changes, gone: make(map[pairKey][]int), used: make([]bool, len(changes))}
	for i := range changes {
		c := &changes[i]
		if c.Kind != Deleted || !pairs(c, c.Old) {
			continue
		}
		for _, name := range []string{"/" + c.Path, path.Base(c.Path), ""} {
			p.gone[keyOf(c, c.Old, name)] = append(p.gone[keyOf(c, c.Old, name)], i)
		}
	}
	if len(p.gone) == 0 {
		return changes
	}
	// What the overlay itself calls renamed comes first, then files that kept their name, then the rest: a
	// guess must not take away the source of a better one.
	p.join(func(c *Change) pairKey { return keyOf(c, c.New, "/"+origin(c.Path)) }, true)
	p.join(func(c *Change) pairKey { return keyOf(c, c.New, path.Base(c.Path)) }, false)
	p.join(func(c *Change) pairKey { return keyOf(c, c.New, "") }, false)
	return p.rest()
}

// pairKey is what two nodes must share. A file that moves into or out of a .git is no rename: apply leaves one
// side of it out.
type pairKey struct {
	typ    NodeType
	sha256 string
	git    bool
	name   string // whole path with a slash before it, base name, or "" for any
}

func keyOf(c *Change, n *Node, name string) pairKey {
	return pairKey{n.Type, n.SHA256, c.Git, name}
}

type pairing struct {
	changes []Change
	gone    map[pairKey][]int // deleted changes that may be left, in the order of their paths
	used    []bool
}

// join pairs what has the same key. known says that the name in it is a fact, so that empty files count too;
// "/" is the origin of what has none.
func (p *pairing) join(key func(*Change) pairKey, known bool) {
	for i := range p.changes {
		to := &p.changes[i]
		if to.Kind != Added || !pairs(to, to.New) || to.New.Size == 0 && !known {
			continue
		}
		k := key(to)
		if known && k.name == "/" {
			continue
		}
		from, ok := p.take(k)
		if !ok {
			continue
		}
		to.Kind, to.From, to.Old = Renamed, from.Path, from.Old
		to.HostChanged = to.HostChanged || from.HostChanged
	}
}

// take removes and returns the first change with that key that nobody took.
func (p *pairing) take(k pairKey) (*Change, bool) {
	for len(p.gone[k]) > 0 {
		i := p.gone[k][0]
		p.gone[k] = p.gone[k][1:]
		if !p.used[i] {
			p.used[i] = true
			return &p.changes[i], true
		}
	}
	return nil, false
}

func (p *pairing) rest() []Change {
	var left []Change
	for i := range p.changes {
		if !p.used[i] {
			left = append(left, p.changes[i])
		}
	}
	return left
}

func pairs(c *Change, n *Node) bool {
	return c.Tier == NoTier && (n.Type == File || n.Type == Symlink)
}
