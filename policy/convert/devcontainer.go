package convert

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// devcontainer reads a devcontainer.json (https://containers.dev/implementors/json_reference/) and the firewall of Claude Code's
// reference container beside it. The script alone will do.
func (b *builder) devcontainer(s Source) error {
	if strings.HasSuffix(s.Name, ".sh") {
		b.firewall(string(s.Text))
		return nil
	}
	o, err := parseObject(s.Text)
	if err != nil {
		return err
	}
	b.devImage(o, path.Dir(strings.ReplaceAll(s.Name, `\`, "/")))
	for _, key := range []string{"containerEnv", "remoteEnv"} {
		b.devEnv(key, o.object(key))
	}
	for _, key := range o.object("features").keys() {
		b.leave("features: "+key, "features are part of an image: build one with them, and name it")
	}
	b.rest("", without(o, "name", "customizations", "remoteUser", "containerUser", "workspaceFolder", "workspaceMount"), "nothing in a policy corresponds to it")
	if s.Firewall != nil {
		b.firewall(string(s.Firewall))
	}
	return nil
}

// without takes away what a run settles by itself.
func without(o object, keys ...string) object {
	for _, key := range keys {
		delete(o, key)
	}
	return o
}

// devImage reads image, or build.dockerfile, which is relative to the file.
func (b *builder) devImage(o object, dir string) {
	var image, dockerfile string
	build := o.object("build")
	switch {
	case o.take("image", &image):
		b.setImage("image: "+strconv.Quote(image)+"\n", "image: "+image)
	case build.take("dockerfile", &dockerfile) || o.take("dockerFile", &dockerfile):
		name := path.Join(dir, dockerfile)
		if path.IsAbs(name) {
			name = path.Join(".devcontainer", dockerfile)
		}
		b.setImage("image: {build: "+strconv.Quote(name)+"}\n", "build.dockerfile: "+dockerfile)
	}
	b.rest("build", build, "an image is built from its Dockerfile alone")
}

func (b *builder) setImage(line, what string) {
	if err := try(line); err != nil {
		b.leave(what, err.Error())
		return
	}
	b.image = line
}

// devEnv takes variables with a value of their own over.
func (b *builder) devEnv(at string, o object) {
	for _, name := range o.keys() {
		var value string
		if !o.take(name, &value) || strings.Contains(value, "${") {
			b.leave(at+"."+name, "its value is made up elsewhere; `env: [NAME]` takes one from the caller")
			continue
		}
		item := strconv.Quote(name + "=" + value)
		if err := try("env: [" + item + "]\n"); err != nil {
			b.leave(at+"."+name, err.Error())
			continue
		}
		b.add(&b.env, at, item)
	}
}

var (
	domainLoop  = regexp.MustCompile(`(?m)^[ \t]*for[ \t]+\w+[ \t]+in[ \t]+((?:[^;\n]|\\\n|\n[ \t]*")*);?[ \t]*\n?[ \t]*(?:;[ \t]*)?do\b`)
	domainArray = regexp.MustCompile(`(?im)^[ \t]*(?:declare[ \t]+-a[ \t]+|local[ \t]+|readonly[ \t]+)*\w*(?:domain|host)\w*=\(([^)]*)\)`)
)

// firewall reads the domains that an init-firewall.sh lets through: the words of a loop, or of an array whose name says
// that it holds domains. Nothing in it is expanded.
func (b *builder) firewall(text string) {
	for _, match := range append(domainLoop.FindAllStringSubmatch(text, maxItems), domainArray.FindAllStringSubmatch(text, maxItems)...) {
		for line := range strings.Lines(match[1]) {
			line, _, _ = strings.Cut(line, "#")
			for _, word := range strings.Fields(line) {
				word = strings.Trim(word, `"'\`)
				if strings.ContainsAny(word, "$`(){}") || !strings.Contains(word, ".") {
					continue
				}
				b.host(&b.allow, "init-firewall.sh", word)
			}
		}
	}
	if strings.Contains(text, "api.github.com/meta") {
		b.add(&b.allow, "init-firewall.sh", "github")
		b.leave("init-firewall.sh: the addresses of GitHub", "the bundle github has its names instead")
	}
	for _, open := range []struct{ mark, what, why string }{
		{"--dport 22 ", "SSH to any host", "name the host: {host: NAME, port: 22, tcp: true}"},
		{"--dport 53 ", "DNS to any host", "names are answered inside, and none that the policy does not allow"},
		{"HOST_NETWORK", "the host's network", "name the service: {host: NAME, port: N, tcp: true, to: \"127.0.0.1:N\"}"},
	} {
		if strings.Contains(text, open.mark) {
			b.leave(fmt.Sprintf("init-firewall.sh: %s", open.what), open.why)
		}
	}
}
