package discover

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// probeVersion is that of the questions and of how the answers are read: another one makes the kept answers void.
const probeVersion = 1

// probeScript asks everything at once, since starting a container takes longer than all the answers. It is for the image's /bin/sh,
// whatever that is. Each answer stands between two lines with a marker that is chosen anew each time, so that no
// file can make up another answer. HOME is a directory that isn't there: the agent's home is empty as well.
const probeScript = `
m=$1
export HOME=/nonexistent COREPACK_ENABLE_NETWORK=0 GOTOOLCHAIN=local NO_UPDATE_NOTIFIER=1 PATH="$PATH:/usr/local/bin:/usr/bin:/bin:/usr/local/go/bin"
begin() { printf '\n%s begin %s\n' "$m" "$*"; }
end() { printf '\n%s end %s\n' "$m" "$1"; }
ask() { n=$1; shift; command -v "$1" >/dev/null 2>&1 || return 0; begin "$n"; "$@" 2>/dev/null </dev/null; end $?; }
show() { for f in "$@"; do [ -f "$f" ] && [ -r "$f" ] || continue; begin file "$f"; head -c 65536 <"$f"; end 0; done; }
ask npm npm config list --json
ask yarn yarn config get registry
ask go go env GOPROXY GOSUMDB
show /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources
for f in $(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's|.*mirror+file:/*\(/[^ ]*\).*|\1|p' 2>/dev/null); do
  [ -f "$f" ] || continue; begin mirrors "$f"; head -c 65536 <"$f"; end 0
done
show /etc/pip.conf /etc/xdg/pip/pip.conf /usr/pip.conf /usr/local/pip.conf "${PIP_CONFIG_FILE:-}" "${VIRTUAL_ENV:-}/pip.conf" /etc/uv/uv.toml
show "${CARGO_HOME:-/nonexistent}/config.toml" "${CARGO_HOME:-/nonexistent}/config" /.cargo/config.toml
show "${MAVEN_HOME:-/nonexistent}/conf/settings.xml" /usr/share/maven/conf/settings.xml /etc/maven/settings.xml
begin env; env | grep -E '^(npm_config_|NPM_CONFIG_|YARN_|GOPROXY=|GOSUMDB=|PIP_|UV_|CARGO_REGISTRIES_|CARGO_SOURCE_)' 2>/dev/null; end 0
begin done; end 0
`

// answer is one section of what the image said.
type answer struct {
	kind, name string // "npm"; "file" and its path
	text       string
	status     int
}

// image asks the image, or what is kept of it.
func (c *collector) image(ctx context.Context, cfg Config) error {
	if cfg.Probe == nil {
		for name := range c.wanted {
			c.missing[name] = "the image was not asked, and the project names none"
		}
		return nil
	}
	kept, ok := loadKept(cfg.CacheDir, cfg.Image)
	if !ok {
		answers, err := ask(ctx, cfg)
		switch {
		case errors.Is(err, ErrNoShell):
			kept = shellless()
		case err != nil:
			return err
		default:
			kept = readAnswers(answers)
		}
		if err := kept.save(cfg.CacheDir, cfg.Image); err != nil {
			return err
		}
	}
	kept.into(c)
	return nil
}

// shellless is what an image without a shell says.
func shellless() kept {
	k := kept{Missing: map[string]string{}}
	for _, name := range []string{"debian", "go", "npm"} {
		k.Missing[name] = "the image has no shell to ask with"
	}
	return k
}

// ask runs the probe.
func ask(ctx context.Context, cfg Config) ([]answer, error) {
	marker := "=" + rand.Text()
	out, err := cfg.Probe(ctx, []string{"/bin/sh", "-c", probeScript, "sh", marker})
	if err != nil {
		return nil, fmt.Errorf("find the registries of the image: %w", err)
	}
	answers := splitAnswers(string(out), marker)
	if n := len(answers); n == 0 || answers[n-1].kind != "done" {
		return nil, errors.New("find the registries of the image: its shell did not come to the end of the questions")
	}
	return answers, nil
}

// splitAnswers cuts the output at the marker.
func splitAnswers(out, marker string) []answer {
	var all []answer
	var text strings.Builder
	open := false
	for line := range strings.Lines(out) {
		rest, marked := strings.CutPrefix(strings.TrimRight(line, "\r\n"), marker+" ")
		switch word, value, _ := strings.Cut(rest, " "); {
		case !marked:
			if open {
				text.WriteString(line)
			}
		case word == "begin":
			a := answer{}
			a.kind, a.name, _ = strings.Cut(value, " ")
			all, open = append(all, a), true
			text.Reset()
		case word == "end" && open:
			last := &all[len(all)-1]
			last.text, open = strings.TrimSuffix(text.String(), "\n"), false
			last.status, _ = strconv.Atoi(value)
		}
	}
	return all
}

// readAnswers parses what the image said.
func readAnswers(answers []answer) kept {
	k := kept{Missing: map[string]string{}}
	have := map[string]bool{}
	for _, a := range answers {
		switch a.kind {
		case "npm":
			have["npm"] = true
			k.add(ofImage, "npm", "image: npm config list", parseNpmConfig(a.text))
		case "yarn":
			k.add(ofImage, "npm", "image: yarn config get registry", parseYarnAnswer(a.text))
		case "go":
			have["go"] = true
			proxy, sumdb, _ := strings.Cut(a.text, "\n")
			k.add(ofImage, "go", "image: go env GOPROXY", parseGoProxy(proxy))
			k.add(ofImage, "go", "image: go env GOSUMDB", parseGoSumDB(sumdb))
		case "mirrors":
			k.add(ofImage, "debian", "image: "+a.name, parseAptMirrors(a.text))
		case "file":
			k.file(a)
			have["debian"] = have["debian"] || strings.HasPrefix(a.name, "/etc/apt/")
		case "env":
			k.environment(a.text)
		}
	}
	for bundle, what := range map[string]string{"npm": "npm", "go": "go program", "debian": "apt sources"} {
		if !have[bundle] {
			k.Missing[bundle] = "the image has no " + what
		}
	}
	return k
}

func parseYarnAnswer(text string) []site {
	var found sites
	found.add(text, registryKey, 0)
	return found
}

// file parses a file by its name.
func (k *kept) file(a answer) {
	source := "image: " + a.name
	switch {
	case strings.HasPrefix(a.name, "/etc/apt/") && strings.HasSuffix(a.name, ".sources"):
		k.add(ofImage, "debian", source, parseAptSources(a.text))
	case strings.HasPrefix(a.name, "/etc/apt/"):
		k.add(ofImage, "debian", source, parseAptList(a.text))
	case strings.HasSuffix(a.name, "/uv.toml"):
		k.add(ofImage, "pypi", source, parseUV(a.text))
	case strings.HasSuffix(a.name, ".xml"):
		k.add(ofImage, "maven", source, parseMaven(a.text))
	case strings.HasSuffix(a.name, "/config") || strings.HasSuffix(a.name, "/config.toml"):
		k.add(ofImage, "cargo", source, parseCargo(a.text))
	default:
		k.add(ofImage, "pypi", source, parsePipConf(a.text))
	}
}

// environment reads the variables that the image sets, one in a line.
func (k *kept) environment(text string) {
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "="); ok {
			bundle, found := parseVariable(name, value)
			k.add(ofEnvironment, bundle, "image: "+name, found)
		}
	}
}
