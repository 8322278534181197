package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
)

// Schema is the JSON Schema (draft 2020-12) of the policy file, indented. It is made from the loader's own table. What it
// can't say, the loader refuses beyond it: duplicate keys, bare yes and no, hosts that are public suffixes, sizes out
// of range, keys that exclude each other.
func Schema() []byte {
	s := maps.Clone(table().schema)
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = "https://github.com/org/agent-sandbox/policy/v1"
	s["title"] = "agent-sandbox policy"
	s["description"] = "What an agent in the sandbox may see, reach and use. The file is .agent-sandbox.yaml in the root of the project."
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(s); err != nil {
		panic(fmt.Sprintf("policy: bug: the schema has no JSON: %v", err))
	}
	return out.Bytes()
}
