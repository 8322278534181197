package policy

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// setOf is an environment with these variables.
func setOf(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

func kit(t testing.TB, name string) Kit {
	t.Helper()
	k, ok := LookupKit(name)
	if !ok {
		t.Fatalf("there is no kit %s", name)
	}
	return k
}

// TestKitsAreComplete holds what every kit has to say, since most of it is only used when the agent runs.
func TestKitsAreComplete(t *testing.T) {
	for _, name := range Agents() {
		k := kit(t, name)
		if k.About == "" || !strings.HasPrefix(k.Source, "https://") || k.Program() == "" || len(k.Interactive) == 0 || k.Interactive[0] != k.Program() {
			t.Errorf("%s lacks something: %+v", name, k)
		}
		if name == "shell" {
			continue
		}
		if k.Version == "" || k.Install.Version != k.Version || k.State == "" || len(k.Credentials) == 0 {
			t.Errorf("%s lacks something: %+v", name, k)
		}
		for _, c := range k.Credentials {
			if service, ok := LookupService(c.Service); !ok || len(c.From) == 0 || len(service.Attach) == 0 {
				t.Errorf("%s: nobody knows the service %q", name, c.Service)
			}
		}
		for _, f := range k.Files {
			if f.Name == "" || f.Content == "" || f.Home == "" && f.Variable == "" || f.Home != "" && !filepath.IsLocal(f.Home) {
				t.Errorf("%s has the file %+v", name, f)
			}
		}
		for _, v := range k.Env {
			if v.FromHost || secretName.MatchString(v.Name) || hostOnlyName.MatchString(v.Name) {
				t.Errorf("%s sets %s", name, v.Name)
			}
		}
	}
}

// TestTriedKits: the programs that our tests run are those that can be installed, and the image's bash. Their lock files have the kits'
// versions: runner/image tests that.
func TestTriedKits(t *testing.T) {
	var tried []string
	for _, name := range Agents() {
		if k := kit(t, name); k.Tried && name != "shell" {
			tried = append(tried, name)
		}
	}
	if diff := cmp.Diff(Installable(), tried); diff != "" {
		t.Errorf("the kits that can be installed and those that are tried differ (-installable +tried)\n%s", diff)
	}
}

// TestImageAgents: what a policy says about its image is all that is in it; where it says nothing, the agent comes with it.
func TestImageAgents(t *testing.T) {
	for _, tt := range []struct {
		policy, started string
		want            []string
	}{
		{"", "claude", []string{"claude"}},
		{"", "aider", nil},
		{"", "shell", nil},
		{"", "", nil},
		{"agents: {mine: {command: [x]}}\n", "mine", nil},
		{"image: debian:13\n", "claude", nil},
		{"image: {build: Dockerfile}\n", "claude", nil},
		{"image: {agents: [opencode, codex]}\n", "claude", []string{"codex", "opencode"}},
	} {
		if got := mustLoad(t, "version: 1\n"+tt.policy).ImageAgents(tt.started); !slices.Equal(got, tt.want) {
			t.Errorf("%q: ImageAgents(%q) = %q, want %q", tt.policy, tt.started, got, tt.want)
		}
	}
}

func TestTaskArgv(t *testing.T) {
	for _, task := range []string{"fix the 'failing' test", `a "b" $(c) \d`, "--help", "two\nlines", "{task}"} {
		for _, name := range Agents() {
			k := kit(t, name)
			argv, input := k.TaskArgv(task)
			at := slices.IndexFunc(argv, func(arg string) bool { return strings.Contains(arg, task) })
			switch {
			case input && at >= 0 || !input && at < 0:
				t.Errorf("%s: the task %q is at %d, and the input is %v", name, task, at, input)
			case !input && !strings.HasSuffix(argv[at], "="+task) && (argv[at] != task || argv[at-1] != "--" && argv[at-1] != "-c"):
				t.Errorf("%s: the task may be taken for an option: %q", name, argv)
			}
			if got := len(argv); got != len(k.Command) {
				t.Errorf("%s: %q became %d arguments, want %d", name, task, got, len(k.Command))
			}
		}
	}
}

func TestInteractiveArgv(t *testing.T) {
	k := Kit{Interactive: []string{"a", "-i", "--prompt=" + TaskWord}}
	if got, want := k.InteractiveArgv(""), []string{"a", "-i"}; !slices.Equal(got, want) {
		t.Errorf("without a task: %q, want %q", got, want)
	}
	if got, want := k.InteractiveArgv("do it"), []string{"a", "-i", "--prompt=do it"}; !slices.Equal(got, want) {
		t.Errorf("with a task: %q, want %q", got, want)
	}
}

// kitTest is a kit with a policy where these variables are set, and what the run then has.
type kitTest struct {
	kit, policy string
	set         []string
	credential  string // name and source
	allow       []string
	unset       string // a setting of the kit that the policy has
}

func (tt kitTest) check(t *testing.T, name string) {
	t.Helper()
	p := loadAs(t, "p.yaml", tt.policy)
	before := p.Digest()
	k, _ := p.Kit(tt.kit)
	out, use, err := p.WithKit(k, setOf(tt.set...))
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	credential := ""
	if len(out.Credentials) > 0 {
		credential = out.Credentials[0].Name + " " + out.Credentials[0].From.String()
	}
	if out.Agent != tt.kit || credential != tt.credential || len(out.Credentials) > 1 || use.Added != (len(p.Credentials) == 0 && tt.credential != "") {
		t.Errorf("%s: agent %q, credentials %+v, use %+v", name, out.Agent, out.Credentials, use)
	}
	var allow []string
	for _, r := range out.Network.Allow {
		allow = append(allow, r.String())
	}
	if diff := cmp.Diff(tt.allow, allow); diff != "" {
		t.Errorf("%s: rules (-want +got)\n%s", name, diff)
	}
	for _, v := range use.Env {
		if v.Name == tt.unset {
			t.Errorf("%s: the kit overrides the policy's %s", name, v.Name)
		}
	}
	if p.Digest() != before {
		t.Errorf("%s: the policy itself has changed", name)
	}
}

func TestWithKitCredential(t *testing.T) {
	for name, tt := range map[string]kitTest{
		"from nothing": {"claude", "", []string{"ANTHROPIC_API_KEY"}, "anthropic env:ANTHROPIC_API_KEY", []string{"api.anthropic.com"}, ""},
		"the second way to sign in": {
			"claude", "", []string{"CLAUDE_CODE_OAUTH_TOKEN"}, "claude-code env:CLAUDE_CODE_OAUTH_TOKEN", []string{"api.anthropic.com"}, "",
		},
		"the usual way first": {
			"claude", "", []string{"CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_API_KEY"}, "anthropic env:ANTHROPIC_API_KEY", []string{"api.anthropic.com"}, "",
		},
		"the service of the variable": {"opencode", "", []string{"OPENAI_API_KEY"}, "openai env:OPENAI_API_KEY", []string{"api.openai.com"}, ""},
		"the policy's credential": {
			"claude", "credentials: {anthropic: {from: \"env:WORK_KEY\"}}", []string{"ANTHROPIC_API_KEY"}, "anthropic env:WORK_KEY", []string{"api.anthropic.com"}, "",
		},
		"the policy's credential by another of its names": {
			"gemini", "credentials: {google: {from: \"env:WORK_KEY\"}}", nil, "google env:WORK_KEY", []string{"generativelanguage.googleapis.com"}, "",
		},
		"the policy's choice of the service": {
			"opencode", "credentials: {openai: {from: \"env:WORK_KEY\"}}", []string{"ANTHROPIC_API_KEY"}, "openai env:WORK_KEY", []string{"api.openai.com"}, "",
		},
	} {
		tt.check(t, name)
	}
}

func TestWithKitHosts(t *testing.T) {
	for name, tt := range map[string]kitTest{
		"the credential's own host": {
			"claude", "credentials: {anthropic: {from: \"env:WORK_KEY\", host: gateway.example.org}}", nil, "anthropic env:WORK_KEY", []string{"gateway.example.org"}, "",
		},
		"a host that the policy has narrowed": {
			"claude", `network: {allow: [{host: api.anthropic.com, rules: ["POST /v1/messages"]}]}`,
			[]string{"ANTHROPIC_API_KEY"},
			"anthropic env:ANTHROPIC_API_KEY",
			[]string{`{host: api.anthropic.com, rules: ["POST /v1/messages"]}`},
			"",
		},
		"a host by a bundle": {
			"claude", "network: {allow: [anthropic]}", []string{"ANTHROPIC_API_KEY"}, "anthropic env:ANTHROPIC_API_KEY", []string{"anthropic"}, "",
		},
		"a host at another port": {
			"claude", `network: {allow: ["api.anthropic.com:8443"]}`,
			[]string{"ANTHROPIC_API_KEY"},
			"anthropic env:ANTHROPIC_API_KEY",
			[]string{`"api.anthropic.com:8443"`, "api.anthropic.com"},
			"",
		},
		"a setting of the policy": {
			"claude", "env: [\"DISABLE_UPDATES=0\"]", []string{"ANTHROPIC_API_KEY"}, "anthropic env:ANTHROPIC_API_KEY", []string{"api.anthropic.com"}, "DISABLE_UPDATES",
		},
		"no credential at all": {"shell", "", nil, "", nil, ""},
		"the project's own": {
			"mine", "agents: {mine: {command: [my-agent], credential: mistral}}", []string{"MISTRAL_API_KEY"}, "mistral env:MISTRAL_API_KEY", []string{"api.mistral.ai"}, "",
		},
	} {
		tt.check(t, name)
	}
}

// TestKitHostsAreDecided: what the kit adds is allowed by the policy that comes out, and by nothing of the one that went in.
func TestKitHostsAreDecided(t *testing.T) {
	p := Default()
	out, _, err := p.WithKit(kit(t, "claude"), setOf("ANTHROPIC_API_KEY"))
	if err != nil {
		t.Fatal(err)
	}
	request := Request{Host: "api.anthropic.com", Port: 443}
	if got := out.Decide(request); !got.Allowed() {
		t.Errorf("with the kit: %+v", got)
	}
	if got := p.Decide(request); got.Allowed() {
		t.Errorf("without the kit: %+v", got)
	}
	denied := loadAs(t, "p.yaml", "network: {deny: [api.anthropic.com]}")
	if out, _, err = denied.WithKit(kit(t, "claude"), setOf("ANTHROPIC_API_KEY")); err != nil {
		t.Fatal(err)
	}
	if got := out.Decide(request); got.Allowed() {
		t.Errorf("the kit gets around network.deny: %+v", got)
	}
}

func TestKitWithoutCredential(t *testing.T) {
	_, _, err := Default().WithKit(kit(t, "claude"), setOf("OPENAI_API_KEY"))
	missing, ok := errors.AsType[*MissingCredentialError](err)
	if !ok {
		t.Fatalf("got %v, want a MissingCredentialError", err)
	}
	for _, want := range []string{"claude", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"} {
		if !strings.Contains(missing.Error()+missing.Hint(), want) {
			t.Errorf("%q, %q: no word of %s", missing.Error(), missing.Hint(), want)
		}
	}
}

// TestCeilingOverKit: what a kit adds is narrowed like the rest.
func TestCeilingOverKit(t *testing.T) {
	p, _, err := Default().WithKit(kit(t, "claude"), setOf("ANTHROPIC_API_KEY"))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"network: {allow: [api.anthropic.com]}\ncredentials: {anthropic: {from: \"env:ANTHROPIC_API_KEY\"}}": "",
		"network: {allow: [api.openai.com]}\ncredentials: {anthropic: {from: \"env:ANTHROPIC_API_KEY\"}}":    "api.anthropic.com",
		"network: {allow: [api.anthropic.com]}": "no credential of this name",
		"agent: codex\nnetwork: {allow: [api.anthropic.com]}\ncredentials: {anthropic: {from: \"env:ANTHROPIC_API_KEY\"}}":            "codex alone",
		"agents: {claud: {command: [a]}}\nnetwork: {allow: [api.anthropic.com]}\ncredentials: {anthropic: {from: \"env:OTHER_KEY\"}}": "env:OTHER_KEY",
	} {
		_, _, err := Narrow(p, loadAs(t, "ceiling.yaml", text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("under %q: %v, want %q", text, err, want)
		}
	}
}

func TestNarrowOwnAgents(t *testing.T) {
	ceiling := loadAs(t, "ceiling.yaml", "agents: {ours: {command: [a]}, other: {command: [b]}}")
	out, _, err := Narrow(loadAs(t, "p.yaml", "agents: {mine: {command: [c]}, ours: {command: [a]}}"), ceiling)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := convert(out.Agents, func(a OwnAgent) string { return a.Name }), []string{"mine", "other", "ours"}; !slices.Equal(got, want) {
		t.Errorf("the agents are %v, want %v", got, want)
	}
	if _, _, err := Narrow(loadAs(t, "p.yaml", "agents: {ours: {command: [z]}}"), ceiling); err == nil || !strings.Contains(err.Error(), "defines this agent otherwise") {
		t.Errorf("another command under the ceiling's name: %v", err)
	}
}
