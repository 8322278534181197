package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// MaxSize is the size of the largest policy file, in bytes.
const MaxSize = 64 << 10

// maxDepth is twice what the deepest valid file needs.
const maxDepth = 16

// parseYAML gives the root mapping of the file's only document. It refuses the parts of YAML that make a file mean
// something else than it seems to: anchors, aliases, merge keys, tags, duplicate keys, second documents. With problems
// the root may still be there, so that the rest of the file can be checked as well.
func parseYAML(name string, src []byte) (*yaml.Node, Problems) {
	if p, bad := checkBytes(name, src); bad {
		return nil, Problems{p}
	}
	doc, more, err := loadNodes(src)
	switch {
	case err != nil:
		return nil, Problems{syntaxProblem(name, src, err)}
	case doc == nil || len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Value == "":
		return nil, Problems{{Place: Place{name, 1, 1}, Message: "the file is empty", Hint: "it needs at least the line `version: 1`"}}
	}
	s := strictness{file: name}
	if more != nil {
		s.fail(more, "", "a second document is not allowed", "a policy is one document: remove the line ---")
	}
	s.check(doc.Content[0], "", 0)
	return doc.Content[0], s.problems
}

// checkBytes looks at the file before the YAML parser does.
func checkBytes(name string, src []byte) (Problem, bool) {
	if len(src) > MaxSize {
		return Problem{Place: Place{File: name}, Message: fmt.Sprintf("the file is larger than %d KiB", MaxSize>>10)}, true
	}
	line, column := 1, 1
	for i := 0; i < len(src); {
		r, size := utf8.DecodeRune(src[i:])
		message := ""
		switch {
		case r == utf8.RuneError && size == 1:
			message = "not valid UTF-8"
		case r == '\ufeff' && i == 0:
			message = "the file starts with a byte order mark; save it as UTF-8 without one"
		case r != '\n' && r != '\r' && r != '\t' && isControl(r):
			message = fmt.Sprintf("the character %U does not belong in a policy", r)
		}
		if message != "" {
			return Problem{Place: Place{name, line, column}, Message: message}, true
		}
		i += size
		column++
		if r == '\n' {
			line, column = line+1, 1
		}
	}
	return Problem{}, false
}

// loadNodes parses two documents at most. The limit on nesting is what keeps 64 KiB of brackets cheap.
func loadNodes(src []byte) (first, second *yaml.Node, err error) {
	defer func() { // a panic of the parser must not take the program down
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML parser gave up: %v", r)
		}
	}()
	loader, err := yaml.NewLoader(bytes.NewReader(src), yaml.WithV4Defaults(), yaml.WithUniqueKeys(false),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		return nil, nil, err
	}
	nodes := [2]*yaml.Node{}
	for i := range nodes {
		var n yaml.Node
		err := loader.Load(&n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		nodes[i] = &n
	}
	return nodes[0], nodes[1], nil
}

func syntaxProblem(name string, src []byte, err error) Problem {
	p := Problem{Place: Place{name, 1, 1}, Message: "not valid YAML: " + err.Error()}
	var load *yaml.LoadError
	if errors.As(err, &load) {
		p.Message = "not valid YAML: " + load.Message
		if load.ContextMsg != "" {
			p.Message += " " + load.ContextMsg
		}
		if load.Mark.Line > 0 {
			p.Place = Place{name, load.Mark.Line, max(1, load.Mark.Column)}
		}
	}
	p.Message = shorten(p.Message)
	if isIndentedByTab(src, p.Place.Line) {
		p.Hint = "indent with blanks, not with tabs"
	}
	return p
}

func isIndentedByTab(src []byte, line int) bool {
	for text := range bytes.Lines(src) {
		if line--; line == 0 {
			return bytes.HasPrefix(bytes.TrimLeft(text, " "), []byte("\t"))
		}
	}
	return false
}

// strictness collects what is wrong with the YAML itself.
type strictness struct {
	file     string
	problems Problems
}

func (s *strictness) fail(n *yaml.Node, path, message, hint string) {
	s.problems = append(s.problems, Problem{Place: Place{s.file, n.Line, n.Column}, Path: path, Message: message, Hint: hint})
}

func (s *strictness) check(n *yaml.Node, path string, depth int) {
	if n.Anchor != "" {
		s.fail(n, path, fmt.Sprintf("the anchor &%s is not allowed", shorten(n.Anchor)), "write the value out where it is needed")
	}
	if n.Style&yaml.TaggedStyle != 0 {
		s.fail(n, path, fmt.Sprintf("the tag %s is not allowed", shorten(n.Tag)), "remove it")
	}
	switch n.Kind {
	case yaml.AliasNode:
		s.fail(n, path, fmt.Sprintf("the alias *%s is not allowed", shorten(n.Value)), "write the value out")
	case yaml.MappingNode:
		s.checkMapping(n, path, depth)
	case yaml.SequenceNode:
		for i, item := range n.Content {
			if depth < maxDepth {
				s.check(item, fmt.Sprintf("%s[%d]", path, i), depth+1)
			}
		}
	}
}

func (s *strictness) checkMapping(n *yaml.Node, path string, depth int) {
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !isPlainKey(key) {
			if key.Kind == yaml.ScalarNode && key.Anchor == "" {
				s.fail(key, path, "merge keys and tagged keys are not allowed", "write the keys out")
			} else {
				s.fail(key, path, "a key has to be a plain word", "")
			}
			continue
		}
		at := joinPath(path, key.Value)
		if first := seen[key.Value]; first != nil {
			s.fail(key, at, fmt.Sprintf("the key is there twice; the first is in line %d", first.Line), "")
			continue
		}
		seen[key.Value] = key
		if depth < maxDepth {
			s.check(value, at, depth+1)
		}
	}
}

// isPlainKey reports a scalar key without decoration.
func isPlainKey(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Anchor == "" && n.Style&yaml.TaggedStyle == 0 && n.Tag != "!!merge"
}

// joinPath keeps paths short whatever the keys are.
func joinPath(path, key string) string {
	if path == "" {
		return shorten(key)
	}
	return path + "." + shorten(key)
}

// isString reports a scalar that every YAML parser reads as a string: quoted, a block, or a plain one that looks like nothing else.
func isString(n *yaml.Node) bool {
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return true
	}
	return !isAmbiguous(n.Value)
}

// isAmbiguous reports a plain scalar that YAML 1.1 or 1.2 take for a boolean, null, number or date
// (https://yaml.org/type/). "22:22" is a number in base 60 to some.
func isAmbiguous(s string) bool {
	switch strings.ToLower(s) {
	case "", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", "=", "<<":
		return true
	}
	return numberLike.MatchString(s)
}

// numberLike is compiled once and never changed.
var numberLike = regexp.MustCompile(`^(?:[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|[-+]?0[xX][0-9a-fA-F_]+|[-+]?0o?[0-7_]+|[-+]?0b[01_]+` +
	`|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?)$`)
