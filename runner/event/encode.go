package event

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
)

// MaxLine bounds one line of the log, without its newline.
const MaxLine = 64 << 10

// encode writes env as canonical JSON of at most MaxLine bytes: keys sorted, no white
// space, no HTML escapes, numbers as integers. Strings and lists that don't fit are
// shortened and the envelope is marked: an event is never lost for its size.
func encode(env Envelope, prev string) ([]byte, error) {
	b, err := json.Marshal(env)
	if err != nil {
		return nil, err
	}
	tree, err := decodeTree(b)
	if err != nil {
		return nil, err
	}
	if prev != "" {
		tree["prev"] = prev
	}
	line, err := encodeTree(tree)
	for limit := MaxLine / 8; err == nil && len(line) > MaxLine; limit /= 4 {
		tree["clipped"] = true
		tree["data"] = clipTree(tree["data"], limit)
		if limit == 0 { // the keys of a map alone are too long
			tree["data"] = map[string]any{}
		}
		line, err = encodeTree(tree)
	}
	return line, err
}

func decodeTree(line []byte) (map[string]any, error) {
	var tree map[string]any
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber() // a count beyond 2^53 stays exact
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errTrailing
	}
	return tree, nil
}

func encodeTree(tree map[string]any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(tree); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// clipTree cuts strings to limit bytes and lists to limit/64 entries.
func clipTree(v any, limit int) any {
	switch v := v.(type) {
	case string:
		if len(v) > limit {
			return strings.ToValidUTF8(v[:limit], "")
		}
	case []any:
		v = v[:min(len(v), limit/64)]
		for i := range v {
			v[i] = clipTree(v[i], limit)
		}
		return v
	case map[string]any:
		for k := range v {
			v[k] = clipTree(v[k], limit)
		}
	}
	return v
}
