package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// nameRule is a regular expression, in the part of the syntax that Go and ECMAScript share, with words for it.
type nameRule struct {
	expression string // without anchors
	what       string // completes "want ..."
}

func (r nameRule) pattern() string { return "^(?:" + r.expression + ")$" }

// matcher compiles the rule when it is first asked: of the hundred rules a policy meets few, and together they have megabytes.
func (r nameRule) matcher() func(string) bool {
	compiled := sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(r.pattern()) })
	return func(s string) bool { return compiled().MatchString(s) }
}

// scalar notes why a node is not the string that it should be.
func (d *decoder) scalar(n *yaml.Node, path, what string) (string, bool) {
	if !d.want(n, path, yaml.ScalarNode, what) {
		return "", false
	}
	if n.Value == "" && n.Style == 0 {
		return "", d.fail(n, path, "there is no value: want "+what, "")
	}
	if !isString(n) {
		return "", d.fail(n, path, fmt.Sprintf("bare %s is no string", shorten(n.Value)), fmt.Sprintf("want %s; if this is one, put it in quotes", what))
	}
	if i := strings.IndexFunc(n.Value, isControl); i >= 0 {
		r, _ := utf8.DecodeRuneInString(n.Value[i:])
		return "", d.fail(n, path, fmt.Sprintf("the character %U does not belong in a policy", r), "")
	}
	return n.Value, true
}

// text is a string that parse accepts and that has the form of the rule, which is what the schema knows of it.
func text[T any](rule nameRule, parse func(string) (T, error)) kind[T] {
	matches := rule.matcher()
	return kind[T]{
		schema{"type": "string", "pattern": rule.pattern()},
		func(d *decoder, n *yaml.Node, path string, into *T) bool {
			s, ok := d.scalar(n, path, rule.what)
			if !ok {
				return false
			}
			v, err := parse(s)
			if err == nil && !matches(s) {
				err = fmt.Errorf("%q: want %s", shorten(s), rule.what)
			}
			if err != nil {
				return d.failErr(n, path, err)
			}
			*into = v
			return true
		},
	}
}

// plainText is a string that the rule alone describes.
func plainText(rule nameRule) kind[string] {
	return text(rule, func(s string) (string, error) { return s, nil })
}

// longText is any string of one line, up to most characters.
func longText(what string, most int) kind[string] {
	return plainText(nameRule{fmt.Sprintf(`[^\n\r]{1,%d}`, most), fmt.Sprintf("%s of at most %d characters", what, most)})
}

// oneOf is a string from a list.
func oneOf[T ~string](values ...T) kind[T] {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = string(v)
	}
	what := "one of " + strings.Join(words, ", ")
	return kind[T]{
		schema{"type": "string", "enum": words},
		func(d *decoder, n *yaml.Node, path string, into *T) bool {
			s, ok := d.scalar(n, path, what)
			if !ok {
				return false
			}
			if !slices.Contains(words, s) {
				hint := didYouMean(s, words)
				return d.fail(n, path, fmt.Sprintf("unknown value %q: want %s", shorten(s), what), hint)
			}
			*into = T(s)
			return true
		},
	}
}

// boolean is true or false, in these letters.
func boolean() kind[bool] {
	return kind[bool]{
		schema{"type": "boolean"},
		func(d *decoder, n *yaml.Node, path string, into *bool) bool {
			if !d.want(n, path, yaml.ScalarNode, "true or false") {
				return false
			}
			if n.Style != 0 || n.Value != "true" && n.Value != "false" {
				return d.fail(n, path, "want true or false, not "+describe(n), "bare, in small letters")
			}
			*into = n.Value == "true"
			return true
		},
	}
}

// integer is a whole number in decimal.
func integer[T ~int | ~int64 | ~uint16](low, high int64) kind[T] {
	what := fmt.Sprintf("a whole number from %d to %d", low, high)
	return kind[T]{
		schema{"type": "integer", "minimum": low, "maximum": high},
		func(d *decoder, n *yaml.Node, path string, into *T) bool {
			if !d.want(n, path, yaml.ScalarNode, what) {
				return false
			}
			v, err := parseDecimal(n.Value)
			if n.Style != 0 || err != nil || v < low || v > high {
				return d.fail(n, path, fmt.Sprintf("want %s, not %s", what, describe(n)), "")
			}
			*into = T(v)
			return true
		},
	}
}

// decimal is a number with at most three digits after the point.
func decimal(low, high float64) kind[float64] {
	what := fmt.Sprintf("a number from %v to %v", low, high)
	matches := nameRule{`(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,3})?`, what}.matcher()
	return kind[float64]{
		schema{"type": "number", "minimum": low, "maximum": high},
		func(d *decoder, n *yaml.Node, path string, into *float64) bool {
			if !d.want(n, path, yaml.ScalarNode, what) {
				return false
			}
			v, err := strconv.ParseFloat(n.Value, 64)
			if n.Style != 0 || err != nil || !matches(n.Value) || v < low || v > high {
				return d.fail(n, path, fmt.Sprintf("want %s, not %s", what, describe(n)), "")
			}
			*into = v
			return true
		},
	}
}

// size is a number of bytes with a unit.
func size(low, high Bytes) kind[Bytes] {
	rule := nameRule{`(?:0|[1-9][0-9]{0,11})(?:B|KiB|MiB|GiB|TiB)`, "a size such as 512MiB or 4GiB"}
	return text(rule, func(s string) (Bytes, error) {
		v, err := ParseBytes(s)
		if err == nil && (v < low || v > high) {
			err = fmt.Errorf("%s is not between %s and %s", s, low, high)
		}
		return v, err
	}).hintForNumbers("a size has a unit, such as 512MiB or 4GiB")
}

// duration is a length of time in days, hours, minutes and seconds.
func duration(low, high time.Duration) kind[time.Duration] {
	const n = `(?:0|[1-9][0-9]{0,11})`
	rule := nameRule{"(?:" + n + "d)?(?:" + n + "h)?(?:" + n + "m)?(?:" + n + "s)?", "a duration such as 30m, 1h30m or 90d"}
	k := text(rule, func(s string) (time.Duration, error) {
		v, err := ParseDuration(s)
		if err == nil && (v < low || v > high) {
			err = fmt.Errorf("%s is not between %s and %s", s, FormatDuration(low), FormatDuration(high))
		}
		return v, err
	}).hintForNumbers("a duration has a unit, such as 30m or 90d")
	k.schema["minLength"] = 1
	return k
}

// hintForNumbers says what a bare number lacks, instead of asking for quotes.
func (k kind[T]) hintForNumbers(hint string) kind[T] {
	return kind[T]{k.schema, func(d *decoder, n *yaml.Node, path string, into *T) bool {
		if n.Kind == yaml.ScalarNode && n.Style == 0 {
			if _, err := strconv.ParseFloat(n.Value, 64); err == nil {
				return d.fail(n, path, fmt.Sprintf("%s has no unit", shorten(n.Value)), hint)
			}
		}
		return k.read(d, n, path, into)
	}}
}
