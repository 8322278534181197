package policy

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

// compiledSchema is the published schema in an independent implementation of JSON Schema.
func compiledSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("policy.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("policy.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// instance is the file as an editor with a JSON Schema sees it: YAML 1.2, without our wrapper.
func instance(t testing.TB, src []byte) (any, bool) {
	t.Helper()
	var n yaml.Node
	if err := yaml.Load(src, &n, yaml.WithV4Defaults()); err != nil || len(n.Content) == 0 {
		return nil, false
	}
	return jsonValue(n.Content[0])
}

func jsonValue(n *yaml.Node) (any, bool) {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, ok := jsonValue(n.Content[i+1])
			if _, twice := m[n.Content[i].Value]; !ok || twice || n.Content[i].Kind != yaml.ScalarNode {
				return nil, false
			}
			m[n.Content[i].Value] = v
		}
		return m, true
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			v, ok := jsonValue(item)
			if !ok {
				return nil, false
			}
			list = append(list, v)
		}
		return list, true
	case yaml.ScalarNode:
		return jsonScalar(n)
	}
	return nil, false
}

// jsonScalar resolves plain scalars by the JSON schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#102-json-schema): what that does
// not know is a string.
func jsonScalar(n *yaml.Node) (any, bool) {
	if n.Style != 0 {
		return n.Value, true
	}
	switch n.Value {
	case "true", "false":
		return n.Value == "true", true
	case "", "null", "~":
		return nil, true
	}
	if strings.Trim(n.Value, "-.0123456789eE") == "" {
		if number := json.Number(n.Value); json.Valid([]byte(number)) {
			return number, true
		}
	}
	return n.Value, true
}

func TestSchemaEqualsLoader(t *testing.T) {
	s := compiledSchema(t)
	for _, tt := range []struct {
		kind             string
		schemaOK, loadOK bool
	}{
		{"valid", true, true},
		{"invalid", false, false},
		{"beyond", true, false}, // each is named by what the schema can't say
	} {
		for _, f := range fixtures(t, tt.kind) {
			v, ok := instance(t, f.Data)
			if !ok {
				t.Fatalf("%s/%s has no JSON", tt.kind, f.Name)
			}
			if err := s.Validate(v); (err == nil) != tt.schemaOK {
				t.Errorf("%s/%s: schema says %v", tt.kind, f.Name, err)
			}
			if _, err := Load(f.Name, f.Data); (err == nil) != tt.loadOK {
				t.Errorf("%s/%s: loader says %v", tt.kind, f.Name, err)
			}
		}
	}
}

// TestSchemaRefusesEachMistake takes the invalid files apart: what is wrong with one line must not hide behind
// another, so each problem's line is tried alone wherever that makes a file.
func TestSchemaRefusesEachMistake(t *testing.T) {
	s := compiledSchema(t)
	for _, f := range fixtures(t, "invalid") {
		_, err := Load(f.Name, f.Data)
		problems, _ := err.(Problems)
		bad := map[int]bool{}
		for _, p := range problems {
			bad[p.Place.Line] = true
		}
		lines := strings.SplitAfter(string(f.Data), "\n")
		for line := range bad {
			var rest strings.Builder
			for i, text := range lines {
				if i+1 == line || !bad[i+1] {
					rest.WriteString(text)
				}
			}
			v, ok := instance(t, []byte(rest.String()))
			if !ok {
				continue
			}
			_, loadErr := Load(f.Name, []byte(rest.String()))
			if schemaErr := s.Validate(v); (loadErr == nil) != (schemaErr == nil) {
				t.Errorf("%s with line %d alone: loader says %v, schema says %v", f.Name, line, loadErr, schemaErr)
			}
		}
	}
}

// TestSchemaHasDescriptions keeps the promise of a schema that editors can show.
func TestSchemaHasDescriptions(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(Schema(), &root); err != nil {
		t.Fatal(err)
	}
	keys := 0
	var walk func(path string, node any)
	walk = func(path string, node any) {
		switch node := node.(type) {
		case []any:
			for _, item := range node {
				walk(path, item)
			}
		case map[string]any:
			properties, _ := node["properties"].(map[string]any)
			for name, p := range properties {
				keys++
				if doc, _ := p.(map[string]any)["description"].(string); doc == "" {
					t.Errorf("%s.%s has no description", path, name)
				}
			}
			if properties != nil && node["additionalProperties"] != false {
				t.Errorf("%s lets unknown keys through", path)
			}
			for name, child := range node {
				walk(path+"."+name, child)
			}
		}
	}
	walk("", root)
	if keys < 60 {
		t.Errorf("only %d keys seen", keys)
	}
	checkGolden(t, "schema.json", Schema())
}

// TestTablesAgree holds the sorted lists that the loader and the schema print.
func TestTablesAgree(t *testing.T) {
	for name, list := range map[string][]string{"Bundles": Bundles(), "Agents": Agents(), "CacheKinds": CacheKinds(), "EvidenceParts": EvidenceParts()} {
		if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
			t.Errorf("%s is not sorted: %v", name, list)
		}
	}
}
