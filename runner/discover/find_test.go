package discover

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
)

func load(t *testing.T, allow string) *policy.Policy {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte("version: 1\nnetwork:\n  allow: ["+allow+"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tree writes files: their names and texts by turns.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		name := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(files[i+1]), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// shell answers as an image with these programs would: by this machine's shell, with the programs first in its path.
func shell(t *testing.T, programs ...string) func(context.Context, []string) ([]byte, error) {
	t.Helper()
	bin := tree(t, programs...)
	// In the image nothing can be written. Here the host's own tools would make themselves at home.
	homeless := strings.NewReplacer("HOME=/nonexistent", "HOME="+t.TempDir(), ":/usr/local/go/bin", "")
	return func(ctx context.Context, argv []string) ([]byte, error) {
		args := slices.Clone(argv[1:])
		for i := range args {
			args[i] = homeless.Replace(args[i])
		}
		cmd := exec.CommandContext(ctx, argv[0], args...)
		cmd.Env = []string{"PATH=" + bin}
		return cmd.Output()
	}
}

const (
	fakeNpm = "#!/bin/sh\ntest \"$*\" = 'config list --json' || exit 9\necho '{\"registry\":\"https://default.example/\",\"@acme:registry\":\"https://acme.example/\",\"//x/:_authToken\":\"(protected)\"}'\n"
	fakeGo  = "#!/bin/sh\necho https://goproxy.example,direct\necho sum.example.org\n"
)

func hosts(found []Found, bundle string) []string {
	out := []string{}
	for _, f := range found {
		if f.Bundle == bundle {
			out = append(out, strings.Join([]string{f.Host.String(), f.Source}, " "))
		}
	}
	return out
}

func find(t *testing.T, cfg Config) Result {
	t.Helper()
	r, err := Find(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestFindAsksTheImage(t *testing.T) {
	r := find(t, Config{Bundles: load(t, "npm, go").UsedBundles(), Project: t.TempDir(), Image: "sha256:1", Probe: shell(t, "npm", fakeNpm, "yarn", "#!/bin/sh\nexit 1\n", "go", fakeGo)})
	if diff := cmp.Diff([]string{"acme.example image: npm config list", "default.example image: npm config list"}, hosts(r.Found, "npm")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"goproxy.example image: go env GOPROXY", "sum.example.org image: go env GOSUMDB"}, hosts(r.Found, "go")); diff != "" {
		t.Error(diff)
	}
	expanded, problems := load(t, "npm, go").Expand(r.Bundles...)
	if len(problems) > 0 || !expanded.Decide(policy.Request{Host: "goproxy.example", Port: 443}).Allowed() {
		t.Errorf("Expand: %v", problems)
	}
}

// A project that names a mirror uses nothing else: the default must not stay open beside it.
func TestFindLetsTheMirrorStandIn(t *testing.T) {
	probe := shell(t, "npm", fakeNpm, "go", fakeGo)
	project := tree(t, ".npmrc", "registry=https://mirror.example/\n", "sub/.npmrc", "@x:registry=https://sub.example\n")
	r := find(t, Config{Bundles: load(t, "npm, go").UsedBundles(), Project: project, Subdir: "sub", Image: "sha256:1", Probe: probe})
	want := []string{"acme.example image: npm config list", "mirror.example project: .npmrc:1", "sub.example project: sub/.npmrc:1"}
	if diff := cmp.Diff(want, hosts(r.Found, "npm")); diff != "" {
		t.Error(diff)
	}
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"npm_config_registry": "http://env.example:4873", "GOPROXY": "https://u:p@env.example/go", "GOSUMDB": "off"}[name]
		return v, ok
	}
	r = find(t, Config{Bundles: load(t, "npm, go").UsedBundles(), Project: project, Image: "sha256:1", Probe: probe, LookupEnv: env})
	if diff := cmp.Diff([]string{"acme.example image: npm config list", "env.example environment: npm_config_registry"}, hosts(r.Found, "npm")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"env.example environment: GOPROXY"}, hosts(r.Found, "go")); diff != "" {
		t.Error(diff)
	}
	// A mirror on the local network stands in as well, though it needs an entry.
	local := tree(t, ".npmrc", "registry=http://10.0.0.5:4873/\n")
	r = find(t, Config{Bundles: load(t, "npm").UsedBundles(), Project: local, Image: "sha256:1", Probe: shell(t, "npm", strings.ReplaceAll(fakeNpm, `,"@acme:registry":"https://acme.example/"`, ""))})
	if len(r.Found) != 0 || len(r.Skipped) != 1 || !strings.Contains(r.Skipped[0].Mend, `"10.0.0.5:4873"`) {
		t.Errorf("found %v, skipped %v", r.Found, r.Skipped)
	}
	_, problems := load(t, "npm").Expand(r.Bundles...)
	if len(problems) != 1 || !strings.Contains(problems[0].Error(), "project: .npmrc:1: 10.0.0.5: it is a private address") || !strings.Contains(problems[0].Hint, "10.0.0.5:4873") {
		t.Errorf("problems: %v", problems)
	}
}

func TestFindExtendsLists(t *testing.T) {
	project := tree(t,
		"requirements-dev.txt", "--extra-index-url https://user:token@pip.example/simple\n", "pyproject.toml", "[[tool.uv.index]]\nurl = \"https://uv.example\"\n",
		".cargo/config.toml", "[source.m]\nregistry = \"sparse+https://crates.corp.example/\"\n", ".mvn/settings.xml", "<settings><mirrors><mirror><url>https://nexus.corp.example</url></mirror></mirrors></settings>",
		".npmrc", "registry=https://not-asked.example\n")
	r := find(t, Config{Bundles: load(t, "pypi, cargo, maven, github").UsedBundles(), Project: project})
	var got []string
	for _, f := range r.Found {
		got = append(got, f.Bundle+" "+f.Host.String()+" "+f.Source)
	}
	want := []string{
		"cargo crates.corp.example project: .cargo/config.toml:2", "maven nexus.corp.example project: .mvn/settings.xml:1",
		"pypi pip.example project: requirements-dev.txt:1", "pypi uv.example project: pyproject.toml:2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	expanded, problems := load(t, "pypi, cargo").Expand(r.Bundles...)
	for _, host := range []string{"pypi.org", "pip.example", "crates.corp.example"} {
		if !expanded.Decide(policy.Request{Host: host, Port: 443}).Allowed() {
			t.Errorf("%s is refused: %v", host, problems)
		}
	}
	if expanded.Decide(policy.Request{Host: "nexus.corp.example", Port: 443}).Allowed() {
		t.Error("a bundle that the policy does not use is allowed")
	}
}

func TestFindSaysWhatIsMissing(t *testing.T) {
	tests := []struct {
		name  string
		probe func(context.Context, []string) ([]byte, error)
		want  string
	}{
		{"no tool", func(_ context.Context, argv []string) ([]byte, error) {
			return []byte("\n" + argv[4] + " begin done\n\n" + argv[4] + " end 0\n"), nil
		}, "the image has no npm"},
		{"no shell", func(context.Context, []string) ([]byte, error) { return nil, ErrNoShell }, "the image has no shell"},
		{"not asked", nil, "the image was not asked"},
	}
	for _, tt := range tests {
		r := find(t, Config{Bundles: load(t, "npm").UsedBundles(), Project: t.TempDir(), Image: "sha256:1", Probe: tt.probe})
		_, problems := load(t, "npm").Expand(r.Bundles...)
		if len(problems) != 1 || !strings.Contains(problems[0].Message, tt.want) || !strings.Contains(problems[0].Hint, ".npmrc") || problems[0].Place.Line != 3 {
			t.Errorf("%s: problems %v", tt.name, problems)
		}
	}
	for _, out := range []string{"", "begin npm\n", "=x begin done\n"} {
		_, err := Find(t.Context(), Config{Bundles: load(t, "npm").UsedBundles(), Project: t.TempDir(), Probe: func(context.Context, []string) ([]byte, error) { return []byte(out), nil }})
		if err == nil {
			t.Errorf("an image that answers %q is believed", out)
		}
	}
	if r, err := Find(t.Context(), Config{Bundles: load(t, "github").UsedBundles(), Project: "/absent"}); err != nil || len(r.Bundles) > 0 {
		t.Errorf("nothing to look for: %v, %v", r, err)
	}
}

// A file of the image that knows how answers look can't make one up: it does not know the marker.
func TestAnswersCannotBeForged(t *testing.T) {
	const marker = "=MARK"
	out := "noise\n=MARK begin file /etc/pip.conf\n[global]\n=OTHER end 0\n=OTHER begin go\nhttps://forged.example\nx\n=MARK end 0\nhttps://between.example\n=MARK begin done\n=MARK end 0\n"
	k := readAnswers(splitAnswers(out, marker))
	if slices.ContainsFunc(k.Sites, func(s keptSite) bool { return s.Bundle == "go" }) || k.Missing["go"] == "" {
		t.Errorf("forged: %+v", k)
	}
}

func TestFindKeepsAnswers(t *testing.T) {
	cache, asked := filepath.Join(t.TempDir(), "state", "discovered"), 0
	inner := shell(t, "npm", strings.ReplaceAll(fakeNpm, "https://default", "https://user:secretword@default"), "go", fakeGo)
	cfg := Config{
		Bundles: []string{"npm"}, Project: t.TempDir(), Image: "sha256:1", CacheDir: cache,
		Probe: func(ctx context.Context, argv []string) ([]byte, error) { asked++; return inner(ctx, argv) },
	}
	first := find(t, cfg)
	cfg.Bundles = []string{"npm", "go"} // all was asked for, whatever the policy was
	second := find(t, cfg)
	if asked != 1 || !slices.Equal(hosts(first.Found, "npm"), hosts(second.Found, "npm")) || len(hosts(second.Found, "go")) != 2 {
		t.Errorf("asked %d times; %v, then %v", asked, first.Found, second.Found)
	}
	entries, err := os.ReadDir(cache)
	if err != nil || len(entries) != 1 {
		t.Fatalf("kept: %v, %v", entries, err)
	}
	name := filepath.Join(cache, entries[0].Name())
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	b, err := os.ReadFile(name)
	if err != nil || strings.Contains(string(b), "secretword") {
		t.Errorf("the file has a password: %s, %v", b, err)
	}
	// What somebody else wrote there opens nothing local, and damage makes us ask again.
	forged := strings.ReplaceAll(string(b), "default.example", "10.0.0.5")
	if err := os.WriteFile(name, []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := hosts(find(t, cfg).Found, "npm"); len(got) != 1 {
		t.Errorf("from a forged file: %v", got)
	}
	if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	find(t, cfg)
	if asked != 2 {
		t.Errorf("asked %d times after damage, want 2", asked)
	}
	cfg.Image, cfg.Probe = "sha256:2", func(context.Context, []string) ([]byte, error) { return nil, errors.New("the engine went away") }
	if _, err := Find(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "went away") {
		t.Errorf("another image: %v", err)
	}
}
