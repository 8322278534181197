package image

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

// npmKits are the agents that can be installed.
func npmKits(t *testing.T) []Agent {
	t.Helper()
	var all []Agent
	for _, name := range policy.Agents() {
		if k, _ := policy.LookupKit(name); k.Install.From == "npm" {
			all = append(all, Agent{name, k.Install.From, k.Install.Package, k.Install.Version})
		}
	}
	if len(all) == 0 {
		t.Fatal("no kit is a package of npm")
	}
	return all
}

// TestAgentLocks: each kit's lock file has its version, an integrity hash for every package, and no address.
func TestAgentLocks(t *testing.T) {
	integrity := regexp.MustCompile(`^sha512-[A-Za-z0-9+/]{86}==$`)
	for _, a := range append(npmKits(t), Agent{Name: "node"}) {
		lock, p, err := readAgentLock(a.Name)
		if err != nil {
			t.Fatal(err)
		}
		if a.Package != "" && p.Dependencies[a.Package] != a.Version {
			t.Errorf("%s: the kit has %s %s, the lock file %v", a.Name, a.Package, a.Version, p.Dependencies)
		}
		var file struct {
			Packages map[string]struct{ Integrity, Resolved string }
		}
		if err := json.Unmarshal(lock, &file); err != nil {
			t.Fatal(err)
		}
		for name, pkg := range file.Packages {
			if name != "" && !integrity.MatchString(pkg.Integrity) || pkg.Resolved != "" {
				t.Errorf("%s: %s has the integrity %q and the address %q", a.Name, name, pkg.Integrity, pkg.Resolved)
			}
		}
		if strings.Contains(string(lock), "://") {
			t.Errorf("%s: the lock file has an address", a.Name)
		}
	}
}

func agentInputs(t *testing.T, dockerfile string, agents ...Agent) (*Inputs, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Dockerfile")
	if err := os.WriteFile(file, []byte(dockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	in, err := ReadInputs(Source{File: file, Agents: agents})
	if err == nil {
		t.Cleanup(func() { _ = in.Close() })
	}
	return in, err
}

// TestAgentStages: the agents' stages start from the Dockerfile's last one, whatever its FROM looks like.
func TestAgentStages(t *testing.T) {
	claude := npmKits(t)[0]
	for _, tt := range []struct{ dockerfile, want string }{
		{"FROM a:1\nUSER me\n", "FROM a:1 AS agent-sandbox-base\nUSER me\n"},
		{"FROM a:1 AS one\nFROM --platform=x \\\n # why\n one\nRUN true", "FROM a:1 AS one\nFROM --platform=x    one AS agent-sandbox-base\nRUN true"},
		{"FROM a:1 AS mine\n", "FROM a:1 AS mine\n"},
	} {
		in, err := agentInputs(t, tt.dockerfile, claude)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(strings.Fields(string(in.built.source)), " ")
		if want := strings.Join(strings.Fields(tt.want), " "); !strings.HasPrefix(got, want) {
			t.Errorf("%q becomes %q, want it to begin with %q", tt.dockerfile, got, want)
		}
		bases, err := in.built.Bases(nil)
		if err != nil || bases[len(bases)-1] != "a:1" {
			t.Errorf("%q: the result stands on %q, %v", tt.dockerfile, bases, err)
		}
	}
}

// TestAgentPlatforms: each lock file that has programs for platforms has one for each of ours, and each C library if it tells them apart. None is
// for another system, or for newer processors: the image shall be the same wherever it is built.
func TestAgentPlatforms(t *testing.T) {
	for _, a := range append(npmKits(t), Agent{Name: "node"}) {
		lock, _, err := readAgentLock(a.Name)
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Packages map[string]struct{ OS, CPU any }
		}
		if err := json.Unmarshal(lock, &file); err != nil {
			t.Fatal(err)
		}
		have := map[string]int{}
		for name, p := range file.Packages {
			if strings.Contains(name, "darwin") || strings.Contains(name, "win32") || strings.Contains(name, "windows") {
				t.Errorf("%s: %s is for no Linux", a.Name, name)
			}
			if name == "node_modules/"+a.Package || p.CPU == nil {
				continue
			}
			platform := regexp.MustCompile(`-(x64|arm64)(-baseline)?(-musl)?$`).FindStringSubmatch(name)
			if platform == nil {
				t.Errorf("%s: %s is for another platform", a.Name, name)
				continue
			}
			have[platform[1]+platform[3]]++
		}
		for platform, n := range have {
			counterpart := strings.NewReplacer("x64", "arm64", "arm64", "x64").Replace(platform)
			if n != 1 || have[counterpart] != 1 {
				t.Errorf("%s: %d programs for %s, and %d for %s; want one of each", a.Name, n, platform, have[counterpart], counterpart)
			}
		}
	}
}

// TestChangedAgents: what the lock has and what this program installs.
func TestChangedAgents(t *testing.T) {
	is := map[string]AgentLock{"claude": {"2", hexDigest("1")}, "codex": {"1", hexDigest("2")}}
	for _, tt := range []struct {
		name string
		was  map[string]AgentLock
		want string // a part of the only message; empty: nothing changed
	}{
		{"same", is, ""},
		{"another version", map[string]AgentLock{"claude": {"1", hexDigest("1")}, "codex": is["codex"]}, "the agent claude is 2 by its kit, and 1 in the lock"},
		{"another lock file", map[string]AgentLock{"claude": is["claude"], "codex": {"1", hexDigest("3")}}, "for the agent codex 1 is not what the lock has"},
		{"one more", map[string]AgentLock{"claude": is["claude"]}, "codex is not in the lock"},
		{"one less", map[string]AgentLock{"claude": is["claude"], "codex": is["codex"], "gemini": {}}, "gemini is in the lock"},
	} {
		got := changedAgents(is, tt.was)
		if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestAgentInputs: which agents, and which of their versions, is part of what the image is made from; their order is not.
func TestAgentInputs(t *testing.T) {
	all := npmKits(t)
	digest := func(agents ...Agent) string {
		in, err := agentInputs(t, "FROM a:1\n", agents...)
		if err != nil {
			t.Fatal(err)
		}
		return in.Digest()
	}
	if digest() == digest(all[0]) || digest(all[0]) == digest(all[1]) {
		t.Error("the agents don't count")
	}
	if digest(all[0], all[1]) != digest(all[1], all[0], all[0]) {
		t.Error("the order counts")
	}
	for _, a := range []Agent{{"aider", "pip", "aider-chat", "1"}, {"claude", "npm", all[0].Package, "9.9.9"}, {"mine", "", "", ""}, {"none", "npm", "x", "1"}} {
		if _, err := agentInputs(t, "FROM a:1\n", a); err == nil {
			t.Errorf("%+v is no error", a)
		}
	}
	if !slices.ContainsFunc(all, func(a Agent) bool { return a.Name == "opencode" }) {
		t.Error("opencode is not among them")
	}
}
