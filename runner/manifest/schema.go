package manifest

import (
	_ "embed" // the schema is a file of the repository, to be published
	"slices"
)

//go:embed schema.json
var schema []byte

// Schema is the JSON Schema (draft 2020-12) of a statement, indented. It is made from the types of this package, and [Decode] takes
// nothing that it refuses.
func Schema() []byte { return slices.Clone(schema) }
