package policy

import (
	"slices"
	"sync"
)

// table is built once from constant data and never changed.
var table = sync.OnceValue(fileKind)

// Load reads a policy file. name is what messages call it. The error is of type [Problems] and holds everything
// that is wrong, sorted by place; a *Policy comes only without an error, and is valid and complete.
// Whatever src is, Load neither panics nor takes more than a few megabytes.
func Load(name string, src []byte) (*Policy, error) {
	p, problems := load(name, src)
	if err := problems.asError(); err != nil {
		return nil, err
	}
	return p, nil
}

func load(name string, src []byte) (*Policy, Problems) {
	root, problems := parseYAML(name, src)
	if root == nil {
		return nil, problems
	}
	p := Default()
	p.Version = 0
	d := &decoder{file: name, places: map[string]Place{}}
	table().read(d, root, "", p)
	slices.Sort(p.Caches)
	slices.Sort(p.Evidence.Include)
	p.name, p.places = name, d.places
	return p, append(problems, d.problems...)
}
