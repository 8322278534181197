package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// decoder reads the nodes of one file and collects every problem.
type decoder struct {
	file     string
	places   map[string]Place
	problems Problems
}

func (d *decoder) at(n *yaml.Node) Place { return Place{d.file, n.Line, n.Column} }

func (d *decoder) fail(n *yaml.Node, path, message, hint string) bool {
	d.problems = append(d.problems, Problem{Place: d.at(n), Path: path, Message: message, Hint: hint})
	return false
}

func (d *decoder) failErr(n *yaml.Node, path string, err error) bool {
	var hinted hintedError
	if errors.As(err, &hinted) {
		return d.fail(n, path, hinted.message, hinted.hint)
	}
	return d.fail(n, path, err.Error(), "")
}

// schema is a fragment of JSON Schema.
type schema map[string]any

// kind is one type of value in the file: how it is read, and how the JSON schema describes it.
type kind[T any] struct {
	schema schema
	// read fills in *into, which holds the default. It reports false after it has noted a problem.
	read func(d *decoder, n *yaml.Node, path string, into *T) bool
}

// field is one key of an object.
type field[T any] struct {
	name     string
	required bool
	schema   schema
	read     func(d *decoder, n *yaml.Node, path string, into *T) bool
}

// key makes a field. at says where in T the value goes; doc is for people, one or two sentences.
func key[T, V any](name string, k kind[V], at func(*T) *V, doc string) field[T] {
	described := maps.Clone(k.schema)
	described["description"] = doc
	return field[T]{
		name:   name,
		schema: described,
		read: func(d *decoder, n *yaml.Node, path string, into *T) bool {
			return k.read(d, n, path, at(into))
		},
	}
}

// must makes the field required.
func (f field[T]) must() field[T] {
	f.required = true
	return f
}

// object is a mapping with known keys.
func object[T any](fields ...field[T]) kind[T] {
	properties, required := schema{}, []string{}
	for _, f := range fields {
		properties[f.name] = f.schema
		if f.required {
			required = append(required, f.name)
		}
	}
	s := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return kind[T]{s, func(d *decoder, n *yaml.Node, path string, into *T) bool {
		return readObject(d, n, path, into, fields)
	}}
}

func readObject[T any](d *decoder, n *yaml.Node, path string, into *T, fields []field[T]) bool {
	if !d.want(n, path, yaml.MappingNode, "a mapping of keys to values") {
		return false
	}
	ok := true
	seen := map[string]bool{}
	for key, value := range pairs(n) {
		i := slices.IndexFunc(fields, func(f field[T]) bool { return f.name == key.Value })
		if i < 0 {
			ok = d.unknownKey(key, path, fieldNames(fields))
			continue
		}
		seen[key.Value] = true
		at := joinPath(path, key.Value)
		d.places[at] = d.at(key)
		if !fields[i].read(d, value, at, into) {
			ok = false
		}
	}
	for _, f := range fields {
		if f.required && !seen[f.name] {
			ok = d.fail(n, path, fmt.Sprintf("the key %q is missing", f.name), "")
		}
	}
	return ok
}

func fieldNames[T any](fields []field[T]) []string {
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	slices.Sort(names)
	return names
}

func (d *decoder) unknownKey(key *yaml.Node, path string, known []string) bool {
	hint := didYouMean(key.Value, known)
	if hint == "" {
		hint = "known keys: " + strings.Join(known, ", ")
	}
	return d.fail(key, joinPath(path, key.Value), "unknown key", hint)
}

// pairs gives the keys that the strict pass has let through, each once.
func pairs(n *yaml.Node) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if !isPlainKey(key) || seen[key.Value] {
				continue
			}
			seen[key.Value] = true
			if !yield(key, n.Content[i+1]) {
				return
			}
		}
	}
}

// want reports whether the node is of this YAML kind. Aliases and tagged nodes are problems already.
func (d *decoder) want(n *yaml.Node, path string, k yaml.Kind, what string) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0:
		return false
	case n.Kind == k:
		return true
	case n.Kind == yaml.ScalarNode && n.Value == "" && n.Style == 0:
		return d.fail(n, path, "there is no value: want "+what, "")
	}
	return d.fail(n, path, fmt.Sprintf("want %s, not %s", what, describe(n)), "")
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		return fmt.Sprintf("%q in quotes", shorten(n.Value))
	}
	return fmt.Sprintf("%q", shorten(n.Value))
}

// list is a sequence of at most most items; a file's items come after those that are there by default.
func list[T any](item kind[T], most int) kind[[]T] {
	return kind[[]T]{
		schema{"type": "array", "items": item.schema, "maxItems": most},
		func(d *decoder, n *yaml.Node, path string, into *[]T) bool {
			if !d.want(n, path, yaml.SequenceNode, "a list") {
				return false
			}
			if len(n.Content) > most {
				return d.fail(n, path, fmt.Sprintf("%d items; %d are the most", len(n.Content), most), "")
			}
			ok := true
			for i, item2 := range n.Content {
				at := fmt.Sprintf("%s[%d]", path, i)
				d.places[at] = d.at(item2)
				var value T
				if item.read(d, item2, at, &value) {
					*into = append(*into, value)
				} else {
					ok = false
				}
			}
			return ok
		},
	}
}

// unique refuses a scalar item that is there twice.
func unique[T any](k kind[[]T]) kind[[]T] {
	s := maps.Clone(k.schema)
	s["uniqueItems"] = true
	return kind[[]T]{s, func(d *decoder, n *yaml.Node, path string, into *[]T) bool {
		ok := k.read(d, n, path, into)
		if n.Kind != yaml.SequenceNode {
			return ok
		}
		first := map[string]int{}
		for i, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				continue
			}
			if line, twice := first[item.Value]; twice {
				ok = d.fail(item, fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("it is there twice; the first is in line %d", line), "")
				continue
			}
			first[item.Value] = item.Line
		}
		return ok
	}}
}

// mapping has keys that the user chooses.
func mapping[T any](name nameRule, value kind[T], most int) kind[map[string]T] {
	matches := name.matcher()
	return kind[map[string]T]{
		schema{
			"type": "object", "maxProperties": most, "additionalProperties": value.schema,
			"propertyNames": schema{"pattern": name.pattern()},
		},
		func(d *decoder, n *yaml.Node, path string, into *map[string]T) bool {
			if !d.want(n, path, yaml.MappingNode, "a mapping of names to values") {
				return false
			}
			if len(n.Content)/2 > most {
				return d.fail(n, path, fmt.Sprintf("%d keys; %d are the most", len(n.Content)/2, most), "")
			}
			*into = map[string]T{}
			ok := true
			for key, node := range pairs(n) {
				at := joinPath(path, key.Value)
				d.places[at] = d.at(key)
				if !matches(key.Value) {
					ok = d.fail(key, at, "want "+name.what, "")
					continue
				}
				var v T
				if value.read(d, node, at, &v) {
					(*into)[key.Value] = v
				} else {
					ok = false
				}
			}
			return ok
		},
	}
}

// checked adds a check over several keys, made when each of them is right by itself.
func (k kind[T]) checked(check func(d *decoder, n *yaml.Node, path string, v *T) bool) kind[T] {
	return kind[T]{k.schema, func(d *decoder, n *yaml.Node, path string, into *T) bool {
		return k.read(d, n, path, into) && check(d, n, path, into)
	}}
}

// either takes a scalar, a mapping or a list, whichever is there.
func either[T any](what string, choices map[yaml.Kind]kind[T]) kind[T] {
	var schemas []schema
	for _, k := range []yaml.Kind{yaml.ScalarNode, yaml.MappingNode, yaml.SequenceNode} {
		if choice, ok := choices[k]; ok {
			schemas = append(schemas, choice.schema)
		}
	}
	return kind[T]{schema{"oneOf": schemas}, func(d *decoder, n *yaml.Node, path string, into *T) bool {
		if choice, ok := choices[n.Kind]; ok {
			return choice.read(d, n, path, into)
		}
		if n.Kind == yaml.AliasNode {
			return false
		}
		return d.fail(n, path, fmt.Sprintf("want %s, not %s", what, describe(n)), "")
	}}
}

// converted turns what one kind reads into what the policy holds.
func converted[A, B any](k kind[A], convert func(d *decoder, path string, a A) B) kind[B] {
	return kind[B]{k.schema, func(d *decoder, n *yaml.Node, path string, into *B) bool {
		var a A
		if !k.read(d, n, path, &a) {
			return false
		}
		*into = convert(d, path, a)
		return true
	}}
}
