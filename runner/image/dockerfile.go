package image

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Dockerfile is what has to be known about a Dockerfile before it is built: the images it starts from, and the files that it
// copies from its context. Everything else is the builder's to understand.
type Dockerfile struct {
	source       []byte
	instructions []instruction
	stages       []stage
	defaults     map[string]string // of ARG before the first FROM
	copies       []string          // patterns of what it copies, relative to the context; see all
	all          bool              // it may need any file of the context
}

// instruction is one instruction with its continuation lines.
type instruction struct {
	name string // in capital letters
	rest string // without continuations and comments
	end  int    // index of the first line after it, heredocs included
	line int    // where it starts, from 1
}

type stage struct{ base, name string }

// maxDockerfile bounds a Dockerfile in bytes.
const maxDockerfile = 1 << 20

// parseDockerfile reads a Dockerfile (https://docs.docker.com/reference/dockerfile/).
func parseDockerfile(source []byte) (*Dockerfile, error) {
	if len(source) > maxDockerfile {
		return nil, fmt.Errorf("the Dockerfile is larger than %d bytes", maxDockerfile)
	}
	d := &Dockerfile{source: source, defaults: map[string]string{}}
	d.instructions = instructions(source)
	for _, in := range d.instructions {
		if err := d.take(in); err != nil {
			return nil, fmt.Errorf("line %d: %w", in.line, err)
		}
	}
	if len(d.stages) == 0 {
		return nil, fmt.Errorf("no FROM instruction")
	}
	return d, nil
}

// until is the Dockerfile up to the end of a stage: nothing after it can have a part in the stage, so what is edited there is no
// other input. An empty name is the last stage.
func (d *Dockerfile) until(target string) (*Dockerfile, error) {
	if target == "" {
		return d, nil
	}
	at := slices.IndexFunc(d.stages, func(s stage) bool { return s.name == strings.ToLower(target) })
	if at < 0 {
		return nil, fmt.Errorf("there is no stage %q\nhint: name a stage with FROM ... AS %s", target, target)
	}
	for _, in := range d.instructions {
		if in.name != "FROM" {
			continue
		}
		if at--; at == -2 { // the stage after it
			lines := strings.SplitAfter(string(d.source), "\n")
			return parseDockerfile([]byte(strings.Join(lines[:in.line-1], "")))
		}
	}
	return d, nil
}

func (d *Dockerfile) take(in instruction) error {
	switch in.name {
	case "ARG":
		if len(d.stages) == 0 {
			for _, word := range strings.Fields(in.rest) {
				name, value, _ := strings.Cut(word, "=")
				d.defaults[name] = unquote(value)
			}
		}
	case "FROM":
		words := withoutFlags(strings.Fields(in.rest))
		if len(words) != 1 && (len(words) != 3 || !strings.EqualFold(words[1], "AS")) {
			return fmt.Errorf("FROM %s: want an image, or an image AS a name", in.rest)
		}
		s := stage{base: words[0]}
		if len(words) == 3 {
			s.name = strings.ToLower(words[2])
		}
		d.stages = append(d.stages, s)
	case "COPY", "ADD":
		d.takeCopy(in)
	case "RUN":
		// A bind mount without from= is of the context.
		if strings.Contains(in.rest, "--mount=") {
			d.all = true
		}
	}
	return nil
}

// takeCopy notes the sources of a COPY or ADD.
func (d *Dockerfile) takeCopy(in instruction) {
	words := strings.Fields(in.rest)
	for _, w := range words {
		if strings.HasPrefix(w, "--from=") {
			return
		}
	}
	words = withoutFlags(words)
	var list []string
	if text := strings.Join(words, " "); strings.HasPrefix(text, "[") && json.Unmarshal([]byte(text), &list) == nil {
		words = list
	}
	if len(words) < 2 {
		return // the builder will say so
	}
	for _, w := range words[:len(words)-1] {
		switch {
		case strings.HasPrefix(w, "<<"), strings.Contains(w, "://"), strings.HasPrefix(w, "git@"):
		case strings.ContainsAny(w, `$\"'`):
			d.all = true
		default:
			if w = strings.TrimPrefix(path.Clean("/"+w), "/"); w == "" {
				d.all = true
			}
			d.copies = append(d.copies, w)
		}
	}
}

func withoutFlags(words []string) []string {
	for len(words) > 0 && strings.HasPrefix(words[0], "--") {
		words = words[1:]
	}
	return words
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

var (
	directive = regexp.MustCompile(`^#\s*([A-Za-z]+)\s*=\s*(\S+)\s*$`)
	heredoc   = regexp.MustCompile(`<<-?(?:"([A-Za-z0-9_.]+)"|'([A-Za-z0-9_.]+)'|([A-Za-z0-9_.]+))`)
)

// instructions splits a Dockerfile.
func instructions(source []byte) []instruction {
	lines := strings.Split(string(source), "\n")
	escape := "\\"
	for _, line := range lines {
		m := directive.FindStringSubmatch(strings.TrimRight(line, "\r"))
		if m == nil {
			break
		}
		if strings.EqualFold(m[1], "escape") {
			escape = m[2]
		}
	}
	var all []instruction
	for i := 0; i < len(lines); {
		start := i
		var text string
		for i < len(lines) {
			line := strings.TrimSpace(lines[i])
			i++
			if strings.HasPrefix(line, "#") || line == "" && text != "" {
				continue // also between continuation lines
			}
			more, continued := strings.CutSuffix(line, escape)
			if text += more; !continued {
				break
			}
			text += " "
		}
		name, rest, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(text, "\t", " ")), " ")
		if name == "" {
			continue
		}
		in := instruction{name: strings.ToUpper(name), rest: strings.TrimSpace(rest), line: start + 1}
		if in.name == "RUN" || in.name == "COPY" || in.name == "ADD" {
			i = skipHeredocs(lines, i, in.rest)
		}
		in.end = i
		all = append(all, in)
	}
	return all
}

// skipHeredocs returns the index of the first line after the heredocs that an instruction starts.
func skipHeredocs(lines []string, i int, text string) int {
	for _, m := range heredoc.FindAllStringSubmatch(text, -1) {
		word := m[1] + m[2] + m[3]
		for at := i; at < len(lines); at++ {
			if strings.Trim(lines[at], "\t\r ") == word {
				i = at + 1
				break
			}
		}
	}
	return i
}

// noBase is what a stage that starts from nothing is built on.
const noBase = "scratch"

// Bases are the images that the Dockerfile starts from, with its arguments put in; the last is what the result is built
// on, which may be "scratch".
func (d *Dockerfile) Bases(args map[string]string) ([]string, error) {
	resolved := make([]string, len(d.stages))
	byName := map[string]int{}
	for i, s := range d.stages {
		base, err := d.expand(s.base, args)
		if err != nil {
			return nil, err
		}
		resolved[i] = base
		if at, ok := byName[strings.ToLower(base)]; ok {
			resolved[i] = resolved[at]
		}
		if s.name != "" {
			byName[s.name] = i
		}
	}
	return resolved, nil
}

var variable = regexp.MustCompile(`\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?::([-+])([^}]*))?\})`)

// expand puts arguments into the name of an image.
func (d *Dockerfile) expand(text string, args map[string]string) (string, error) {
	out := variable.ReplaceAllStringFunc(unquote(text), func(match string) string {
		m := variable.FindStringSubmatch(match)
		name := m[1] + m[2]
		value, ok := args[name]
		if !ok {
			value = d.defaults[name]
		}
		switch {
		case m[3] == "-" && value == "":
			return m[4]
		case m[3] == "+" && value != "":
			return m[4]
		case m[3] == "+":
			return ""
		}
		return value
	})
	if out == "" || strings.Contains(out, "$") {
		return "", fmt.Errorf("FROM %s: no argument gives it a value", text)
	}
	return out, nil
}

// withAfterFrom returns the Dockerfile with text after each FROM.
func (d *Dockerfile) withAfterFrom(text string) []byte {
	lines := strings.SplitAfter(string(d.source), "\n")
	var b strings.Builder
	at := 0
	for _, in := range d.instructions {
		if in.name != "FROM" {
			continue
		}
		for ; at < in.end && at < len(lines); at++ {
			b.WriteString(lines[at])
		}
		if !strings.HasSuffix(b.String(), "\n") {
			b.WriteByte('\n')
		}
		b.WriteString(text)
	}
	for ; at < len(lines); at++ {
		b.WriteString(lines[at])
	}
	return []byte(b.String())
}
