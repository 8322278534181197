package scaffold

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Project is what was found out about a directory.
type Project struct {
	Languages     []Language // in the order of the table
	Dockerfile    string     // slash-separated path of the project's own; empty: none
	Devcontainer  string     // path of devcontainer.json; empty: none
	DevDockerfile string     // the Dockerfile that it builds, relative to the project
	DevImage      string     // the image that it names
	Workflows     bool       // it has workflows of GitHub Actions
	Repository    string     // owner/name on GitHub, from the remote "origin"; empty: unknown
	Agent         string     // the kit whose instruction file lies in the project; empty: none, or several
	Tests         []string   // the command that runs its tests; nil: unknown
}

// Language is one that the project is written in.
type Language struct {
	Name     string
	File     string   // that gave it away
	Bundle   string   // of package hosts
	Packages []string // of Debian, with the tools that the usual image lacks
	Tests    []string
}

// languages are known by a file at the project's root. Packages are Debian's: the agent image is.
func languages() []Language {
	return []Language{
		{Name: "Go", File: "go.mod", Bundle: "go", Packages: []string{"golang"}, Tests: []string{"go", "test", "./..."}},
		{Name: "JavaScript", File: "package.json", Bundle: "npm", Packages: []string{"npm"}, Tests: []string{"npm", "test"}},
		{Name: "Python", File: "pyproject.toml", Bundle: "pypi", Packages: []string{"python3-pip", "python3-venv"}, Tests: []string{"python3", "-m", "unittest"}},
		{Name: "Python", File: "requirements.txt", Bundle: "pypi", Packages: []string{"python3-pip", "python3-venv"}, Tests: []string{"python3", "-m", "unittest"}},
		{Name: "Rust", File: "Cargo.toml", Bundle: "cargo", Packages: []string{"cargo"}, Tests: []string{"cargo", "test"}},
		{Name: "Java", File: "pom.xml", Bundle: "maven", Packages: []string{"maven"}, Tests: []string{"mvn", "-B", "test"}},
		{Name: "Java", File: "build.gradle", Bundle: "gradle", Packages: []string{"default-jdk-headless"}, Tests: []string{"./gradlew", "test"}},
		{Name: "Kotlin", File: "build.gradle.kts", Bundle: "gradle", Packages: []string{"default-jdk-headless"}, Tests: []string{"./gradlew", "test"}},
		{Name: "Ruby", File: "Gemfile", Bundle: "rubygems", Packages: []string{"bundler"}, Tests: []string{"bundle", "exec", "rake", "test"}},
		{Name: "PHP", File: "composer.json", Bundle: "packagist", Packages: []string{"composer"}, Tests: []string{"composer", "test"}},
	}
}

// agentFiles give away the agent that a project is worked on with. AGENTS.md is many agents', so it tells nothing.
func agentFiles() map[string]string {
	return map[string]string{
		"CLAUDE.md": "claude", ".claude": "claude", ".codex": "codex", "GEMINI.md": "gemini", ".gemini": "gemini",
		"opencode.json": "opencode", ".opencode": "opencode", ".aider.conf.yml": "aider", ".goosehints": "goose",
	}
}

// maxFile bounds what is read of one file in bytes.
const maxFile = 256 << 10

// Detect looks at the project in dir.
func Detect(dir string) (Project, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Project{}, err
	}
	defer root.Close()
	d := detector{root}
	p := Project{Agent: d.agent(), Repository: d.repository()}
	for _, l := range languages() {
		if d.exists(l.File) && !slices.ContainsFunc(p.Languages, func(o Language) bool { return o.Name == l.Name }) {
			p.Languages = append(p.Languages, l)
		}
	}
	p.Tests = d.tests(p.Languages)
	if d.exists("Dockerfile") {
		p.Dockerfile = "Dockerfile"
	}
	d.devcontainer(&p)
	p.Workflows = d.workflows()
	return p, nil
}

// detector reads the project. What can't be read is as if it weren't there: nothing depends on finding all.
type detector struct{ root *os.Root }

func (d detector) exists(name string) bool {
	_, err := d.root.Stat(name)
	return err == nil
}

func (d detector) read(name string) []byte {
	f, err := d.root.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil // a pipe would never end
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil
	}
	return b
}

// agent is the one that left files here, if it is only one.
func (d detector) agent() string {
	found := ""
	for name, kit := range agentFiles() {
		switch {
		case !d.exists(name), found == kit:
		case found != "":
			return ""
		default:
			found = kit
		}
	}
	return found
}

// tests is the command of the first language, unless a Makefile knows better.
func (d detector) tests(all []Language) []string {
	for line := range strings.Lines(string(d.read("Makefile"))) {
		if strings.HasPrefix(line, "test:") {
			return []string{"make", "test"}
		}
	}
	if len(all) == 0 {
		return nil
	}
	if l := all[0]; l.Name != "JavaScript" || d.hasTestScript() {
		return l.Tests
	}
	return nil
}

// hasTestScript: `npm test` fails in a project that has no script of that name.
func (d detector) hasTestScript() bool {
	var manifest struct {
		Scripts map[string]string `json:"scripts"`
	}
	return json.Unmarshal(d.read("package.json"), &manifest) == nil && manifest.Scripts["test"] != ""
}

// onDemand compiles a pattern when it is first used: repetitions such as {0,200} take memory, and every command of the program has this package.
func onDemand(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// plainPath is a path that can stand in YAML as it is.
var plainPath = onDemand(`^[A-Za-z0-9_][A-Za-z0-9._/-]{0,200}$`)

// plainImage is a reference of an image that can (https://github.com/distribution/reference).
var plainImage = onDemand(`^[a-z0-9][A-Za-z0-9._/:@-]{0,254}$`)

// devcontainer reads what it is built from (https://containers.dev/implementors/json_reference). With comments it is no JSON, and
// then only known to be there.
func (d detector) devcontainer(p *Project) {
	for _, name := range []string{".devcontainer/devcontainer.json", ".devcontainer.json"} {
		if !d.exists(name) {
			continue
		}
		p.Devcontainer = name
		var c struct {
			Image      string `json:"image"`
			DockerFile string `json:"dockerFile"`
			Build      struct {
				Dockerfile string `json:"dockerfile"`
			} `json:"build"`
		}
		if json.Unmarshal(withoutComments(d.read(name)), &c) != nil {
			return
		}
		if file := c.Build.Dockerfile + c.DockerFile; file != "" {
			// Relative to devcontainer.json. Outside of the project there is nothing to build from.
			if file = path.Join(path.Dir(name), file); (plainPath().MatchString(file) || strings.HasPrefix(file, ".devcontainer/")) && d.exists(file) {
				p.DevDockerfile = file
			}
		} else if plainImage().MatchString(c.Image) {
			p.DevImage = c.Image
		}
		return
	}
}

// withoutComments takes whole lines of // comments away, which is how they are used in this file.
func withoutComments(b []byte) []byte {
	var out []byte
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(strings.TrimSpace(line), "//") {
			out = append(out, line...)
		}
	}
	return out
}

func (d detector) workflows() bool {
	entries, err := fs.ReadDir(d.root.FS(), ".github/workflows")
	return err == nil && slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return strings.HasSuffix(e.Name(), ".yml") || strings.HasSuffix(e.Name(), ".yaml")
	})
}

var repositoryName = onDemand(`^[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}$`)

// repository is the one that the remote "origin" has on github.com. git itself is not asked: this repository's configuration could
// make it run a program.
func (d detector) repository() string {
	scanner := bufio.NewScanner(strings.NewReader(string(d.read(".git/config"))))
	origin := false
	for scanner.Scan() {
		line := strings.TrimSpace(scanner.Text())
		if strings.HasPrefix(line, "[") {
			origin = line == `[remote "origin"]`
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if origin && ok && strings.TrimSpace(key) == "url" {
			return githubName(strings.TrimSpace(value))
		}
	}
	return ""
}

// githubName reads https://github.com/o/n.git, ssh://git@github.com/o/n and git@github.com:o/n.
func githubName(remote string) string {
	name, err := githubPath(remote)
	if name = strings.TrimSuffix(strings.Trim(name, "/"), ".git"); err != nil || !repositoryName().MatchString(name) {
		return ""
	}
	return name
}

var errElsewhere = errors.New("not on github.com")

func githubPath(remote string) (string, error) {
	if rest, ok := strings.CutPrefix(remote, "git@github.com:"); ok {
		return rest, nil
	}
	u, err := url.Parse(remote)
	if err != nil || !strings.EqualFold(u.Hostname(), "github.com") {
		return "", errElsewhere
	}
	return u.Path, nil
}
