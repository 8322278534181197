package policy

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// ErrNoPlace tells that items can't be put into a file without writing it anew.
var ErrNoPlace = errors.New("network.allow is written in a way that items can't be added to it line by line")

// AddAllow puts items at the end of network.allow, in the text of the file: everything else in it, comments included,
// stays as it is. Without a text it makes a file. The result loads and means what the file meant, and the items; the
// error wraps ErrNoPlace when there is no such text, and is a [Problems] when the file or an item is invalid.
func AddAllow(name string, src []byte, items []string) ([]byte, error) {
	if len(bytes.TrimSpace(src)) == 0 {
		src = []byte("version: 1\n")
	}
	before, err := Load(name, src)
	if err != nil || len(items) == 0 {
		return src, err
	}
	added, err := Load(name, []byte("version: 1\nnetwork:\n  allow:\n"+block(items, "    ", "\n")))
	if err != nil {
		return nil, err
	}
	want := slices.Concat(before.Network.Allow, added.Network.Allow)
	var refused error
	for _, text := range editions(src, items) {
		p, err := Load(name, text)
		switch {
		case err != nil:
			refused = err
		case p.sameBut(before, want):
			return text, nil
		}
	}
	if refused != nil {
		return nil, errors.Join(ErrNoPlace, refused)
	}
	return nil, ErrNoPlace
}

// sameBut reports whether p is before with these allow rules.
func (p *Policy) sameBut(before *Policy, allow []Rule) bool {
	expected := *before
	expected.Network.Allow = allow
	return p.Digest() == expected.Digest()
}

// editions are the texts that may be right, the likeliest first; which one is, is for the loader to say.
func editions(src []byte, items []string) [][]byte {
	root, _, err := loadNodes(src)
	if err != nil || root == nil || len(root.Content) == 0 {
		return nil
	}
	e := edition{lines: strings.SplitAfter(string(src), "\n"), items: items, newline: "\n"}
	if strings.Contains(string(src), "\r\n") {
		e.newline = "\r\n"
	}
	network := valueOf(root.Content[0], "network")
	if network == nil {
		return [][]byte{e.append("network:" + e.newline + "  allow:" + e.newline + block(items, "    ", e.newline))}
	}
	allow := valueOf(network, "allow")
	flow := func(n *yaml.Node) bool { return n.Style&yaml.FlowStyle != 0 }
	switch {
	case allow != nil && allow.Kind == yaml.SequenceNode && flow(allow):
		return e.inFlow(allow)
	case network.Kind != yaml.MappingNode || len(network.Content) == 0 || flow(network):
		return nil
	case allow == nil:
		indent := strings.Repeat(" ", network.Content[0].Column-1)
		return [][]byte{e.insert(network.Content[0].Line-1, indent+"allow:"+e.newline+block(items, indent+"  ", e.newline))}
	case allow.Kind == yaml.SequenceNode:
		return e.inBlock(allow)
	}
	return nil
}

type edition struct {
	lines   []string // each with its end
	items   []string
	newline string
}

func block(items []string, indent, newline string) string {
	var b strings.Builder
	for _, item := range items {
		b.WriteString(indent + "- " + item + newline)
	}
	return b.String()
}

func valueOf(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// insert puts text before the line with this index.
func (e edition) insert(at int, text string) []byte {
	head, tail := strings.Join(e.lines[:at], ""), strings.Join(e.lines[at:], "")
	if head != "" && !strings.HasSuffix(head, "\n") {
		head += e.newline
	}
	return []byte(head + text + tail)
}

func (e edition) append(text string) []byte { return e.insert(len(e.lines), text) }

// maxAhead is how many lines after its last token an item is looked for the end of.
const maxAhead = 20

// inBlock puts the items after the last one. Where that ends, the nodes don't say: the lines after its last token are tried.
func (e edition) inBlock(allow *yaml.Node) [][]byte {
	text := block(e.items, strings.Repeat(" ", allow.Column-1), e.newline)
	var all [][]byte
	for at := lastLine(allow); at <= min(len(e.lines), lastLine(allow)+maxAhead); at++ {
		all = append(all, e.insert(at, text))
	}
	return all
}

// inFlow puts the items before a bracket that may be the closing one.
func (e edition) inFlow(allow *yaml.Node) [][]byte {
	text := strings.Join(e.lines, "")
	start := 0
	for _, line := range e.lines[:allow.Line-1] {
		start += len(line)
	}
	var all [][]byte
	for i := start; i < len(text) && len(all) < maxAhead; i++ {
		if text[i] != ']' {
			continue
		}
		glue := ", "
		if before := strings.TrimSpace(text[start:i]); strings.HasSuffix(before, "[") || strings.HasSuffix(before, ",") {
			glue = ""
		}
		head := text[:i]
		if strings.TrimSpace(head[strings.LastIndexByte(head, '\n')+1:]) != "" {
			head = strings.TrimRight(head, " ")
		}
		all = append(all, []byte(head+glue+strings.Join(e.items, ", ")+text[i:]))
	}
	return all
}

func lastLine(n *yaml.Node) int {
	last := n.Line
	for _, c := range n.Content {
		last = max(last, lastLine(c))
	}
	return last
}
