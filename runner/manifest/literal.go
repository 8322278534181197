package manifest

import (
	"fmt"
	"strings"

	"github.com/org/agent-sandbox/runner/event"
)

// literal shows text in Markdown as it is: no links, mentions, HTML or table cells come of it. What has a meaning there becomes a
// character reference (https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references).
func literal(text string) string {
	var b strings.Builder
	before := rune(0)
	for _, r := range event.Printable(text) {
		www := r == '.' && (before == 'w' || before == 'W') // GitHub makes a link of www.
		before = r
		if www || strings.ContainsRune("\\`*_{}[]<>()#+!|~&@:$^=\"'", r) {
			fmt.Fprintf(&b, "&#%d;", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
