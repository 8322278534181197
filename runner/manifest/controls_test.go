package manifest

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestControlsNameFields: each line is about a field that exists, and controls are spelled as their frameworks do.
func TestControlsNameFields(t *testing.T) {
	for _, s := range Controls() {
		if !hasField(reflect.TypeFor[Predicate](), strings.Split(s.Field, ".")) {
			t.Errorf("there is no field %s", s.Field)
		}
		for _, list := range []struct {
			ids   []string
			shape string
		}{
			{s.SOC2, `^(CC[1-9]\.[0-9]|A1\.[1-3])$`},
			{s.ISO27001, `^A\.[5-8]\.[1-9][0-9]?$`},
			{s.NIST, `^[A-Z]{2}-[1-9][0-9]?$`},
		} {
			if len(list.ids) == 0 {
				t.Errorf("%s supports nothing of one framework", s.Field)
			}
			for _, id := range list.ids {
				if !regexp.MustCompile(list.shape).MatchString(id) {
					t.Errorf("%s: %q is no control", s.Field, id)
				}
			}
		}
		if strings.Contains(s.Shows, "complian") {
			t.Errorf("%s promises too much: %s", s.Field, s.Shows)
		}
	}
	// Every part of a manifest is evidence for something.
	for f := range reflect.TypeFor[Predicate]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		plain := []string{"run", "included", "warnings", "clipped"} // what names, repeats or shortens the rest
		if !slices.Contains(plain, name) && !slices.ContainsFunc(Controls(), func(s Support) bool { first, _, _ := strings.Cut(s.Field, "."); return first == name }) {
			t.Errorf("%s supports no control", name)
		}
	}
}

func hasField(t reflect.Type, path []string) bool {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if len(path) == 0 {
		return true
	}
	if t.Kind() != reflect.Struct {
		return false
	}
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name == path[0] {
			return hasField(f.Type, path[1:])
		}
	}
	return false
}
