package broker

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"github.com/org/agent-sandbox/policy"
)

// maxFile bounds a trust policy and the configuration, in bytes.
const maxFile = 64 << 10

// ParseConfig reads the file. What is wrong with its form comes as [policy.Problems]; the values are checked by [New], when the keys are filled in.
func ParseConfig(name string, src []byte) (Config, error) {
	cfg := Config{places: places{file: name}}
	var root yaml.Node
	if err := loadYAML(src, &root); err != nil {
		return Config{}, cfg.places.problems(err)
	}
	cfg.places.at = map[string]policy.Place{}
	cfg.places.note(&root, "")
	if err := loadYAML(src, &cfg); err != nil {
		return Config{}, cfg.places.problems(err)
	}
	return cfg, nil
}

func loadYAML(src []byte, into any) (err error) {
	defer func() { // a panic of the parser must not take the broker down
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML parser gave up: %v", r)
		}
	}()
	if len(src) > maxFile {
		return fmt.Errorf("larger than %d KiB", maxFile>>10)
	}
	return yaml.Load(src, into, yaml.WithV4Defaults(), yaml.WithKnownFields(), yaml.WithUniqueKeys(),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(8))))
}

// places are where the values of the file stand, by their paths, such as apps[0].id. The zero value is of a configuration that no file has.
type places struct {
	file string
	at   map[string]policy.Place
}

func (p places) note(n *yaml.Node, path string) {
	if path != "" {
		p.at[path] = policy.Place{File: p.file, Line: n.Line, Column: n.Column}
	}
	for i, child := range n.Content {
		switch {
		case n.Kind == yaml.DocumentNode:
			p.note(child, path)
		case n.Kind == yaml.SequenceNode:
			p.note(child, fmt.Sprintf("%s[%d]", path, i))
		case n.Kind == yaml.MappingNode && i%2 == 1:
			p.note(child, strings.TrimPrefix(path+"."+n.Content[i-1].Value, "."))
		}
	}
}

// of is the place of what has this path, or of the nearest thing around it.
func (p places) of(path string) policy.Place {
	for ; path != ""; path = path[:max(0, strings.LastIndexAny(path, ".["))] {
		if at, ok := p.at[path]; ok {
			return at
		}
	}
	return policy.Place{File: cmp.Or(p.file, "configuration")}
}

// problems are those that the YAML parser tells.
func (p places) problems(err error) error {
	var all policy.Problems
	var several *yaml.LoadErrors
	var one *yaml.LoadError
	switch {
	case errors.As(err, &several):
		for _, e := range several.Errors {
			all = append(all, p.problem(e))
		}
	case errors.As(err, &one):
		all = append(all, p.problem(one))
	default:
		all = append(all, policy.Problem{Place: policy.Place{File: p.file}, Message: err.Error()})
	}
	return sorted(all)
}

func (p places) problem(e *yaml.LoadError) policy.Problem {
	at := policy.Place{File: p.file, Line: e.Mark.Line, Column: e.Mark.Column}
	return policy.Problem{Place: at, Message: strings.NewReplacer(" in type broker.", " in ", "broker.", "").Replace(e.Message)}
}

// sorted is nil for none, so that no empty list passes for an error.
func sorted(all policy.Problems) error {
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, func(a, b policy.Problem) int {
		return cmp.Or(cmp.Compare(a.Place.Line, b.Place.Line), cmp.Compare(a.Place.Column, b.Place.Column))
	})
	return all
}
