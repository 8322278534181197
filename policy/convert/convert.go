// Package convert makes policies from the allow lists of other tools. It carries over what means the same here, and says of
// everything else why it was left out: a policy that silently allows more, or less, than its source would be worse than none.
// It reads no files.
package convert

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/org/agent-sandbox/policy"
)

// MaxSize bounds what is converted, in bytes.
const MaxSize = 1 << 20

// LeftOut is something of the source that the policy does not have.
type LeftOut struct {
	What string // where it is in the source, and what it says
	Why  string
}

// Converted is a policy, and what it lacks of its source.
type Converted struct {
	Policy []byte // the text of a file that loads
	Left   []LeftOut
}

// Source is what another tool's configuration consists of.
type Source struct {
	Name string // of the file, for the comment at the top
	Text []byte
	// Firewall is the script init-firewall.sh beside a devcontainer.json; nil when there is none.
	Firewall []byte
}

// Kinds are the tools that [From] knows.
func Kinds() []string { return []string{"awf", "claude", "devcontainer", "srt"} }

// From converts the configuration of a tool: claude (settings.json of Claude Code), srt (settings of Anthropic's
// sandbox-runtime), devcontainer (devcontainer.json and its init-firewall.sh) or awf (a list of domains of GitHub's gh-aw-firewall).
func From(kind string, s Source) (Converted, error) {
	if len(s.Text) > MaxSize || len(s.Firewall) > MaxSize {
		return Converted{}, fmt.Errorf("%s: more than %d bytes", s.Name, MaxSize)
	}
	b := &builder{}
	var err error
	switch kind {
	case "awf":
		b.awf(string(s.Text))
	case "claude":
		err = b.claude(s.Text)
	case "devcontainer":
		err = b.devcontainer(s)
	case "srt":
		err = b.srt(s.Text)
	default:
		err = fmt.Errorf("unknown tool %q: want one of %s", kind, strings.Join(Kinds(), ", "))
	}
	if err != nil {
		return Converted{}, err
	}
	text := b.text(s.Name)
	if _, err := policy.Load(s.Name, text); err != nil {
		return Converted{}, fmt.Errorf("the converted policy is not valid: %w", err)
	}
	return Converted{Policy: text, Left: b.left}, nil
}

// maxItems bounds each list, as the policy's own format does.
const maxItems = 400

// builder gathers the parts of a policy. Each part is tried by itself, so that one that is refused becomes a note and
// does not take the others along.
type builder struct {
	image             string // the whole line
	allow, deny, hide []string
	env               []string
	left              []LeftOut
}

func (b *builder) leave(what, why string) {
	l := LeftOut{clip(what), why}
	if len(b.left) < maxItems && !slices.Contains(b.left, l) {
		b.left = append(b.left, l)
	}
}

func clip(s string) string {
	const longest = 200
	if len(s) > longest {
		return strings.ToValidUTF8(s[:longest], "") + "..."
	}
	return s
}

// host adds a domain to the list.
func (b *builder) host(list *[]string, at, domain string) {
	item, err := hostItem(domain)
	if err != nil {
		b.leave(at+": "+domain, err.Error())
		return
	}
	b.add(list, at, item)
}

func (b *builder) add(list *[]string, at, item string) {
	switch {
	case slices.Contains(*list, item):
	case len(*list) >= maxItems:
		b.leave(at+": "+item, fmt.Sprintf("a list has at most %d entries here", maxItems))
	default:
		*list = append(*list, item)
	}
}

// hostItem is the entry for "name", "*.name" or either with a port.
func hostItem(domain string) (string, error) {
	domain = strings.TrimSpace(domain)
	port := uint64(443)
	if name, p, ok := strings.Cut(domain, ":"); ok && !strings.Contains(p, ":") && !strings.Contains(domain, "/") {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", errors.New("the port is no number from 1 to 65535")
		}
		domain, port = name, n
	}
	host, err := policy.ParseHost(domain)
	if err != nil {
		return "", err
	}
	if !host.IsWildcard() {
		if why := host.NeedsEntry(); why != "" {
			return "", errors.New(why + ", so it needs an entry of its own, with `private: true` or `to`")
		}
	}
	return policy.Rule{Host: host, Ports: []policy.PortRange{{First: uint16(port), Last: uint16(port)}}}.String(), nil
}

// path hides a path of the project. What is outside of it no run sees.
func (b *builder) path(at, path string) {
	if strings.HasPrefix(path, "//") || strings.HasPrefix(path, "~") {
		b.leave(at+": "+path, "no run sees it: it is outside of the project")
		return
	}
	if rest, ok := strings.CutPrefix(path, "./"); ok {
		path = "/" + rest
	}
	if _, err := policy.ParsePattern(path); err != nil || strings.HasPrefix(path, "!") {
		b.leave(at+": "+path, "it is no pattern for `hide`")
		return
	}
	b.add(&b.hide, at, strconv.Quote(path))
}

// try reports whether a policy with nothing but these lines loads, and why not.
func try(lines string) error {
	_, err := policy.Load("", []byte("version: 1\n"+lines))
	var problems policy.Problems
	if errors.As(err, &problems) {
		return errors.New(problems[0].Message)
	}
	return err
}

func (b *builder) text(name string) []byte {
	var t strings.Builder
	fmt.Fprintf(&t, "# Converted from %s.\nversion: 1\n%s", strconv.QuoteToASCII(name), b.image)
	list := func(indent, key string, items []string) {
		if len(items) > 0 {
			fmt.Fprintf(&t, "%s%s:\n", indent, key)
		}
		for _, item := range items {
			fmt.Fprintf(&t, "%s  - %s\n", indent, item)
		}
	}
	if len(b.hide) > 0 {
		t.WriteString("workspace:\n")
	}
	list("  ", "hide", b.hide)
	list("", "env", b.env)
	if len(b.allow)+len(b.deny) > 0 {
		t.WriteString("network:\n")
	}
	list("  ", "allow", b.allow)
	list("  ", "deny", b.deny)
	return []byte(t.String())
}
