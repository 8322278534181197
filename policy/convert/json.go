package convert

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// object is a JSON object whose members are read one by one, so that what nobody reads can be named.
type object map[string]json.RawMessage

// parseObject reads JSON with comments and trailing commas, as editors write it.
func parseObject(text []byte) (object, error) {
	var o object
	if err := json.Unmarshal(plainJSON(text), &o); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if o == nil {
		return nil, errors.New("not a JSON object")
	}
	return o, nil
}

// take reads a member, and takes it away. What has another type than it should is as good as not there.
func (o object) take(key string, into any) bool {
	raw, ok := o[key]
	if !ok || json.Unmarshal(raw, into) != nil {
		return false
	}
	delete(o, key)
	return true
}

// object takes a member that is an object; an empty one when there is none.
func (o object) object(key string) object {
	var inner object
	if !o.take(key, &inner) || inner == nil {
		return object{}
	}
	return inner
}

func (o object) keys() []string {
	var keys []string
	for key := range o {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// plainJSON takes comments and trailing commas away. Strings stay as they are.
func plainJSON(text []byte) []byte {
	out := make([]byte, 0, len(text))
	comma := -1 // where a comma stands that nothing but white space follows so far
	for i := 0; i < len(text); {
		rest := string(text[i:min(len(text), i+2)])
		switch c := text[i]; {
		case c == '"':
			end := stringEnd(text, i)
			out, i, comma = append(out, text[i:end]...), end, -1
		case rest == "//":
			i = after(text, i, "\n") - 1
		case rest == "/*":
			i = after(text, i+2, "*/")
		case c == ',':
			comma = len(out)
			out = append(out, c)
			i++
		default:
			if (c == '}' || c == ']') && comma >= 0 {
				out = slices.Delete(out, comma, comma+1)
			}
			if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
				comma = -1
			}
			out = append(out, c)
			i++
		}
	}
	return out
}

// stringEnd is behind the string that starts at i.
func stringEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// after is behind the next mark, or one behind the end.
func after(text []byte, i int, mark string) int {
	i = min(i, len(text))
	if at := strings.Index(string(text[i:]), mark); at >= 0 {
		return i + at + len(mark)
	}
	return len(text) + 1
}
