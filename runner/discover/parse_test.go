package discover

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
)

// say is what a parser found, a line for each: "host:port line key", or "name: why".
func say(found []site) []string {
	out := []string{}
	for _, s := range found {
		switch {
		case s.why != "":
			out = append(out, strings.TrimSpace(s.name+": "+s.why))
		case s.host.IsZero():
			out = append(out, "nothing")
		default:
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s:%d %d %s", s.host, s.port, s.line, s.key)))
		}
	}
	return out
}

const notFull = ": is not written in full"

// parserTest is a text, and what is found in it as say has it.
type parserTest struct {
	name  string
	parse parser
	text  string
	want  []string
}

func checkParsers(t *testing.T, tests []parserTest) {
	t.Helper()
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, say(tt.parse(tt.text))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestParseNode(t *testing.T) {
	checkParsers(t, []parserTest{
		{"npmrc", parseNpmrc, `
; registry=https://comment.example/
registry = https://npm.corp.example:8443/api/
@acme:registry="http://acme.example"
//npm.corp.example:8443/api/:_authToken=npm_abc
@acme:unrelated=https://no.example
home=https://no.example
[section]
registry=https://section.example
`, []string{"npm.corp.example:8443 3 registry", "acme.example:80 4 @acme:registry"}},
		{"npmrc with variables", parseNpmrc, "registry=https://${HOST}/\nregistry=https://a.example/${X}\n", []string{notFull, "a.example:443 2 registry"}},
		{"yarnrc", parseYarnrc, `
npmRegistryServer: "https://yarn.example" # ours
npmScopes:
  acme:
    npmRegistryServer: https://scope.example/npm/
    npmAuthToken: x
`, []string{"yarn.example:443 2 registry", "scope.example:443 5 registry"}},
		{"yarn classic", parseYarnClassic, "# c\nregistry \"https://a.example\"\n\"@x:registry\" \"https://b.example\"\nlastUpdateCheck 1\n", []string{"a.example:443 2 registry", "b.example:443 3 @x:registry"}},
		{"npm config", parseNpmConfig, `{"registry":"https://a.example/","@x:registry":"https://b.example","cafile":"https://no.example","registry2":1}`, []string{"b.example:443 0 @x:registry", "a.example:443 0 registry"}},
		{"npm config, damaged", parseNpmConfig, `{"registry":`, []string{}},
	})
}

func TestParseGo(t *testing.T) {
	checkParsers(t, []parserTest{
		{"goproxy", parseGoProxy, "https://a.example/go|http://b.example,direct", []string{"a.example:443 0 GOPROXY", "b.example:80 0 GOPROXY"}},
		{"goproxy off", parseGoProxy, "https://a.example,off,https://b.example", []string{"a.example:443 0 GOPROXY"}},
		{"goproxy direct", parseGoProxy, "direct", []string{"direct: fetches modules from their own repositories"}},
		{"goproxy off alone", parseGoProxy, "off", []string{"off: fetches nothing"}},
		{"goproxy file", parseGoProxy, "file:///cache", []string{}},
		{"gosumdb name", parseGoSumDB, "sum.example.org", []string{"sum.example.org:443 0 GOSUMDB"}},
		{"gosumdb key and address", parseGoSumDB, "sum.example.org+033de0ae+Ac4z https://a.example/sum", []string{"a.example:443 0 GOSUMDB"}},
		{"gosumdb key", parseGoSumDB, "sum.example.org+033de0ae+Ac4z/x", []string{"sum.example.org:443 0 GOSUMDB"}},
		{"gosumdb off", parseGoSumDB, "off", []string{"nothing"}},
	})
}

func TestParseApt(t *testing.T) {
	checkParsers(t, []parserTest{
		{"apt list", parseAptList, `
# deb http://comment.example/debian x main
deb [arch=amd64 signed-by=/usr/x.gpg] http://mirror.example/debian stable main # http://no.example
deb-src	https://src.example:8443/debian stable main
deb mirror+https://list.example/m.txt stable main
deb mirror://old.example/m.txt stable main
deb cdrom:[x]/ stable main
deb file:/srv stable main
rpm http://no.example x
`, []string{"mirror.example:80 3", "src.example:8443 4", "list.example:443 5", "old.example:80 6"}},
		{"apt sources", parseAptSources, `# http://comment.example
Types: deb
URIs: http://a.example/debian
 https://b.example/debian
# in between
 http://c.example
Suites: stable http://no.example

Types: deb
Enabled: no
URIs: http://off.example

types: deb
uris: http://d.example
`, []string{"a.example:80 3", "b.example:443 4", "c.example:80 6", "d.example:80 14"}},
		{"apt mirrors", parseAptMirrors, "# x\nhttp://a.example/debian\tpriority:1\nhttps://b.example\n", []string{"a.example:80 2", "b.example:443 3"}},
	})
}

func TestParsePython(t *testing.T) {
	checkParsers(t, []parserTest{
		{"pip.conf", parsePipConf, `
[global]
index-url = https://user:pass@pip.example/simple
extra_index_url:
    https://one.example/simple
    http://two.example:8080/simple
trusted-host = two.example
    https://no.example
find-links = /local https://links.example
`, []string{"pip.example:443 3", "one.example:443 5", "two.example:8080 6", "links.example:443 9"}},
		{"requirements", parseRequirements, `
--index-url https://a.example/simple
--extra-index-url=https://b.example/simple
-i	https://c.example
-f https://d.example/x.html
-r https://no.example/requirements.txt
requests==2 --hash=sha256:x
pkg @ https://no.example/pkg.whl
`, []string{"a.example:443 2", "b.example:443 3", "c.example:443 4", "d.example:443 5"}},
		{"pyproject", parsePyproject, `
[project]
urls = { home = "https://no.example" }
[tool.uv]
index-url = "https://a.example/simple"
extra-index-url = [
  "https://b.example/simple", # a comment
  'http://c.example/simple',
]
index = [{ name = "x", url = "https://d.example" }]
[[tool.uv.index]]
name = "y"
url = "https://e.example"
[[tool.poetry.source]]
url = "https://f.example"
priority = "primary"
[tool.other]
url = "https://no.example"
text = """
[[tool.uv.index]]
url = "https://no.example"
"""
`, []string{"a.example:443 5", "b.example:443 7", "c.example:80 8", "d.example:443 10", "e.example:443 13", "f.example:443 15"}},
		{"uv.toml", parseUV, "[[index]]\nurl = \"https://a.example\"\n[pip]\nindex-url = \"https://b.example\"\n[other]\nurl=\"https://no.example\"\n", []string{"a.example:443 2", "b.example:443 4"}},
	})
}

func TestParseCargoAndMaven(t *testing.T) {
	checkParsers(t, []parserTest{
		{"cargo", parseCargo, `
[source.crates-io]
replace-with = "mirror"
[source.mirror]
registry = "sparse+https://crates.corp.example/index/"
[source."local one"]
directory = "vendor"
[registries]
acme = { index = "https://git.example/index" }
ssh = { index = "ssh://git@ssh.example/index" }
[registries.dotted]
index = "sparse+http://d.example:8000/"
token = "https://no.example"
[env]
X = "https://no.example"
`, []string{"crates.corp.example:443 5", "git.example:443 9", "d.example:8000 12"}},
		{"settings.xml", parseMaven, `<?xml version="1.0"?>
<settings xmlns="http://maven.apache.org/SETTINGS/1.0.0">
  <mirrors><mirror><id>x</id><mirrorOf>*</mirrorOf>
    <url>https://nexus.example/maven</url></mirror></mirrors>
  <servers><server><password>https://no.example</password></server></servers>
  <profiles><profile><repositories><repository><url>http://r.example</url></repository></repositories>
  <pluginRepositories><pluginRepository><url> https://p.example </url></pluginRepository></pluginRepositories></profile></profiles>
  <proxies><proxy><host>no.example</host></proxy></proxies>
</settings>`, []string{"nexus.example:443 4", "r.example:80 6", "p.example:443 7"}},
		{"pom.xml", parseMaven, `<project><url>https://no.example</url>
<repositories><repository><url>https://a.example</url></repository>
<repository><url>${repo}</url></repository><repository><url>https://${repo}/x</url></repository>
<repository><url>https://b<!-- -->.example</url></repository></repositories>
<distributionManagement><repository><url>https://no.example</url></repository></distributionManagement>
</project>`, []string{"a.example:443 2", notFull, ": the address can't be read"}},
		{"not XML", parseMaven, "<project><repositories><repository><url>https://a.example", []string{}},
	})
}

func TestSiteOf(t *testing.T) {
	tests := []struct {
		address, want string
		ok            bool
	}{
		{"https://A.Example/x", "a.example:443", true},
		{"https://u:p@a.example:8443/x", "a.example:8443", true},
		{"https://u:p@no.example@a.example/", "a.example:443", true},
		{`https://a.example\@b.example/`, "a.example:443", true},
		{"https://a.example?@b.example", "a.example:443", true},
		{"HTTP://a.example", "a.example:80", true},
		{"https://a.example:0/", "a.example: has no port of 1 to 65535", true},
		{"https://a.example:99999/", "a.example: has no port of 1 to 65535", true},
		{"https://a.example:/", "a.example:443", true},
		{"https://9.9.9.9:8080", "9.9.9.9:8080", true},
		{"https://[2606:4700::1111]:8443/", "2606:4700::1111:8443", true},
		{"https://10.1.2.3/", "10.1.2.3: it is a private address", true},
		{"https://169.254.169.254/", "169.254.169.254: it is a cloud metadata address", true},
		{"http://nexus:8081/", "nexus: a name without a dot means something on one network only", true},
		{"https://secret/with@a.example/", ": a name without a dot means something on one network only", true},
		{"https://%61.example/", ": is not written in full", true},
		{"https://*.example.com/", ": is not written in full", true},
		{"https://b\u00fccher.example/", ": the address can't be read", true},
		{"https://a b.example/", ": the address can't be read", true},
		{"ssh://git@a.example/", "", false},
		{"file:///x", "", false},
		{"/x", "", false},
		{"", "", false},
		{"https://" + strings.Repeat("a", maxAddress), "", false},
	}
	for _, tt := range tests {
		s, ok := siteOf(tt.address, "", 0)
		got := ""
		if ok {
			got = strings.TrimSuffix(say([]site{s})[0], " 0")
		}
		if ok != tt.ok || !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("siteOf(%q) = %q, %v, want %q, %v", tt.address, got, ok, tt.want, tt.ok)
		}
	}
	s, _ := siteOf("http://10.1.2.3:8081/x", "", 0)
	if !strings.Contains(s.mend, `- "10.1.2.3:8081"`) {
		t.Errorf("mend %q", s.mend)
	}
	s, _ = siteOf("http://nexus:8081/x", "", 0)
	if !strings.Contains(s.mend, `{host: nexus, port: 8081, private: true}`) {
		t.Errorf("mend %q", s.mend)
	}
}

func allParsers() []parser {
	return []parser{
		parseNpmrc, parseYarnrc, parseYarnClassic, parseNpmConfig, parseYarnAnswer, parseGoProxy, parseGoSumDB, parseAptList, parseAptSources,
		parseAptMirrors, parsePipConf, parseRequirements, parsePyproject, parseUV, parseCargo, parseMaven, indexSites,
	}
}

// FuzzParsersInventNothing: a host that is found stands in the file, and may be reached.
func FuzzParsersInventNothing(f *testing.F) {
	for _, text := range []string{
		"registry=https://a.example:8443/\n@x:registry=http://b.example\n", `{"registry":"https://a.example"}`, "https://a.example,direct", "sum.example+1+x",
		"deb [x] http://a.example/ stable main\n", "URIs: http://a.example\n https://b.example\n", "[global]\nindex-url=https://a.example\n x",
		"--index-url https://u:p@a.example\n", "[[tool.uv.index]]\nurl='https://a.example'\n", "[registries.a]\nindex=\"sparse+https://a.example\"\n",
		"<settings><mirrors><mirror><url>https://a.example</url></mirror></mirrors></settings>", "registry=https://[2606:4700::1]/\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lower := strings.ToLower(text)
		for i, parse := range allParsers() {
			for _, s := range parse(text) {
				if s.host.IsZero() {
					continue
				}
				written, err := policy.ParseHost(s.name)
				if err != nil || written != s.host || !strings.Contains(lower, s.name) {
					t.Errorf("parser %d finds %s, written %q, in %q", i, s.host, s.name, text)
				}
				if s.host.NeedsEntry() != "" || s.port == 0 || s.why != "" {
					t.Errorf("parser %d lets %s:%d through, in %q", i, s.host, s.port, text)
				}
			}
		}
	})
}

// FuzzParsersDropCredentials: nothing that is kept of an address holds its password.
func FuzzParsersDropCredentials(f *testing.F) {
	f.Add("user", "x", "a.example/path")
	f.Add("", "/slash", "10.0.0.1/")
	f.Add("a.b@c", "?q#f", "nexus:8081")
	f.Add("a:b", `\`, "${HOST}")
	formats := []string{
		"registry=%s\n", "npmRegistryServer: %s\n", "registry \"%s\"\n", `{"registry":"%s"}`, "%s", "deb %s stable main\n", "URIs: %s\n", "[global]\nindex-url=%s\n",
		"--index-url %s\n", "[[tool.uv.index]]\nurl='%s'\n", "[registries.a]\nindex='%s'\n", "<settings><mirrors><mirror><url>%s</url></mirror></mirrors></settings>",
	}
	const tag = "zq7passwd"
	f.Fuzz(func(t *testing.T, user, password, rest string) {
		if strings.ContainsAny(user+password+rest, " \t\r\n\v\f\"'<>,|=") || !isASCII("x"+user+password+rest) || strings.Contains(strings.ToLower(user+password+rest), tag) || strings.Contains(password, "://") {
			t.Skip()
		}
		for i, format := range formats {
			text := fmt.Sprintf(format, "https://"+user+":"+tag+password+"@"+rest)
			for _, parse := range allParsers() {
				for _, s := range parse(text) {
					if kept := strings.ToLower(fmt.Sprint(s.host, s.name, s.why, s.mend, s.key)); strings.Contains(kept, tag) {
						t.Errorf("format %d keeps %q of %q", i, kept, text)
					}
				}
			}
		}
	})
}

// Nesting and length cost no more than they are worth.
func TestParsersAreBounded(t *testing.T) {
	for i, parse := range allParsers() {
		for _, text := range []string{
			strings.Repeat("[", maxFile), "a=" + strings.Repeat("{a=", maxFile/4), strings.Repeat("<a>", maxFile/4), strings.Repeat("registry=https://a.example\n", 30_000),
			strings.Repeat("a.", maxFile/2) + "=1", "a='''" + strings.Repeat("\\'", maxFile/2),
		} {
			if found := parse(text); len(found) > maxLines {
				t.Errorf("parser %d: %d sites", i, len(found))
			}
		}
	}
	if got := dirsTo("a/b/c"); !slices.Equal(got, []string{".", "a", "a/b", "a/b/c"}) {
		t.Errorf("dirsTo = %q", got)
	}
	if got := dirsTo("../../etc"); !slices.Equal(got, []string{"."}) {
		t.Errorf("dirsTo = %q", got)
	}
}
