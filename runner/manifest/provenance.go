package manifest

import (
	"reflect"
	"strings"
)

// The provenances.
const (
	Observed  = "observed"
	Asserted  = "asserted"
	Inherited = "inherited"
)

// Provenance maps the fields of a predicate that have a provenance of their own to it: see [Predicate].
func Provenance() map[string]string {
	all := map[string]string{}
	collectProvenance(all, "", "", reflect.TypeFor[Predicate]())
	return all
}

func collectProvenance(all map[string]string, path, inherited string, t reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.Name() == "Time" {
		return
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		at := name
		if path != "" {
			at = path + "." + name
		}
		from := f.Tag.Get("from")
		if from == "" {
			from = inherited
		}
		if from != inherited {
			all[at] = from
		}
		collectProvenance(all, at, from, f.Type)
	}
}
