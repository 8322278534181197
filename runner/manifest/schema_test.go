package manifest

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/runnertest"
)

var update = flag.Bool("update", false, "rewrite the schema, its documentation and the golden files")

// fieldDocs are the comments of this package's types: "Type" and "Type.Field".
func fieldDocs(t *testing.T) map[string]string {
	t.Helper()
	docs := map[string]string{}
	for _, name := range []string{"statement.go", "predicate.go", "predicate_run.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			spec := g.Specs[0].(*ast.TypeSpec)
			docs[spec.Name.Name] = oneLine(g.Doc.Text())
			s, ok := spec.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, field := range s.Fields.List {
				docs[spec.Name.Name+"."+field.Names[0].Name] = oneLine(strings.TrimPrefix(field.Doc.Text(), field.Names[0].Name+" "))
			}
		}
	}
	return docs
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// generator makes the schema and the documentation of the types.
type generator struct {
	docs map[string]string
	page strings.Builder
}

func (g *generator) schema(t reflect.Type, enum string) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return map[string]any{"type": "object"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.schema(t.Elem(), enum)
	case reflect.Struct:
		return g.object(t)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": g.schema(t.Elem(), "")}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": g.schema(t.Elem(), "")}
	case reflect.String:
		if enum != "" {
			return map[string]any{"enum": strings.Split(enum, ",")}
		}
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Uint16, reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	default:
		return map[string]any{"type": "integer"}
	}
}

func (g *generator) object(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []string{}
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		s := g.schema(f.Type, f.Tag.Get("enum"))
		s["description"] = g.docs[t.Name()+"."+f.Name]
		switch name {
		case "_type":
			s["const"] = StatementType
		case "predicateType":
			s["const"] = PredicateType
		}
		properties[name] = s
		if options != "omitempty" {
			required = append(required, name)
		}
	}
	slices.Sort(required)
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties, "required": required}
}

// document writes the fields of t as a table, and those of its parts below.
func (g *generator) document(path, from string, t reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
		return
	}
	fmt.Fprintf(&g.page, "\n### %s\n\n%s\n\n| field | type | from | meaning |\n|---|---|---|---|\n", path, strings.SplitN(g.docs[t.Name()], " The tag", 2)[0])
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		kind := typeName(f.Type)
		if options == "omitempty" {
			kind += ", optional"
		}
		own := f.Tag.Get("from")
		if own == "" {
			own = from
		}
		fmt.Fprintf(&g.page, "| `%s` | %s | %s | %s |\n", name, kind, own, g.docs[t.Name()+"."+f.Name])
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		own := f.Tag.Get("from")
		if own == "" {
			own = from
		}
		g.document(strings.TrimPrefix(path+"."+name, "statement."), own, f.Type)
	}
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == reflect.TypeFor[json.RawMessage]():
		return "object"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Slice:
		return "list of " + typeName(t.Elem())
	case reflect.Map:
		return "map to " + typeName(t.Elem())
	case reflect.Struct:
		return "object"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "yes or no"
	default:
		return "number"
	}
}

func checkGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the types say: go test ./runner/manifest -update", name)
	}
}

// TestSchemaAndDocumentationAreTheTypes: the three can't drift apart.
func TestSchemaAndDocumentationAreTheTypes(t *testing.T) {
	g := generator{docs: fieldDocs(t)}
	s := g.schema(reflect.TypeFor[Statement](), "")
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = PredicateType + "/schema.json"
	s["title"] = "agent-sandbox run manifest"
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "schema.json", out.Bytes())
	head, err := os.ReadFile(filepath.Join("testdata", "manifest.md"))
	if err != nil {
		t.Fatal(err)
	}
	g.page.Write(head)
	g.document("statement", Observed, reflect.TypeFor[Statement]())
	checkGolden(t, filepath.Join("..", "..", "docs", "manifest.md"), []byte(g.page.String()))
	for name, doc := range g.docs {
		if doc == "" {
			t.Errorf("%s has no comment", name)
		}
	}
}

// TestSchemaEqualsDecode changes a complete statement in every place: what the schema says of it and what Decode does are the same.
func TestSchemaEqualsDecode(t *testing.T) {
	s, err := runnertest.NewSchema(Schema())
	if err != nil {
		t.Fatal(err)
	}
	payload, err := Build(fullInput(t))
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	try := func(what string, root any) {
		tried++
		changed, err := json.Marshal(root)
		if err != nil {
			t.Fatal(err)
		}
		if changed, err = canonical(changed); err != nil {
			t.Fatal(err)
		}
		_, decodeErr := Decode(changed)
		if schemaErr := s.Statement(changed); (schemaErr == nil) != (decodeErr == nil) {
			t.Errorf("%s: the schema says %v, Decode %v", what, schemaErr, decodeErr)
		}
	}
	var root any
	if err := json.Unmarshal(payload, &root); err != nil {
		t.Fatal(err)
	}
	try("nothing", root)
	mutate(root, "", func(what string) { try(what, root) })
	if tried < 500 {
		t.Errorf("only %d changes were tried", tried)
	}
}

// mutate calls try with one change at a time: a key removed, a key added, a value of another type, null, a word that nobody knows.
func mutate(node any, path string, try func(what string)) {
	switch node := node.(type) {
	case map[string]any:
		if strings.HasSuffix(path, ".compiled") || strings.HasSuffix(path, ".provenance") {
			return // their keys are free
		}
		free := slices.ContainsFunc([]string{".digest", ".dropped", ".used", ".permissions"}, func(end string) bool { return strings.HasSuffix(path, end) })
		for _, key := range slices.Sorted(maps.Keys(node)) {
			old := node[key]
			at := path + "." + key
			if !free {
				delete(node, key)
				try(at + " removed")
			}
			for _, other := range []any{nil, "\x00word", -1.5, true, []any{}, map[string]any{"x": 1}} {
				if same(old, other) && !isWord(at) {
					continue
				}
				node[key] = other
				try(fmt.Sprintf("%s = %v", at, other))
			}
			node[key] = old
			mutate(old, at, try)
		}
		if !free {
			node["unknown"] = 1
			try(path + ".unknown added")
			delete(node, "unknown")
		}
	case []any:
		if len(node) > 0 {
			old := node[0]
			node[0] = nil
			try(path + "[0] = null")
			node[0] = old
			mutate(old, path, try)
		}
	}
}

// same tells whether two values have one JSON type: any value of it will do.
func same(a, b any) bool { return reflect.TypeOf(a) == reflect.TypeOf(b) }

// isWord: these have their words, or a fixed value.
func isWord(path string) bool {
	return slices.ContainsFunc(
		[]string{"._type", ".predicateType", ".result", ".trigger", ".lock", ".origin", ".control", ".kind", ".stream", ".state"},
		func(end string) bool { return strings.HasSuffix(path, end) },
	)
}
