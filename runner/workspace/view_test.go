package workspace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/policy"
)

func TestPrepareRefuses(t *testing.T) {
	project, state := t.TempDir(), t.TempDir()
	populate(t, project, "file=1", "state/", "dir/")
	none := matcherOf(t)
	ok := Config{Project: project, StateDir: state, Mode: policy.ModeCopy, UID: 1000, GID: 1000, Hide: none, Protect: none}
	if _, err := Prepare(t.Context(), ok); err != nil {
		t.Fatalf("the control: %v", err)
	}
	for name, edit := range map[string]func(*Config){
		"no hide patterns":          func(c *Config) { c.Hide = nil },
		"bind without protection":   func(c *Config) { c.Mode, c.Protect = policy.ModeBind, nil },
		"no project":                func(c *Config) { c.Project = "" },
		"a file as the project":     func(c *Config) { c.Project = filepath.Join(project, "file") },
		"no state directory":        func(c *Config) { c.StateDir = "" },
		"state inside the project":  func(c *Config) { c.StateDir = filepath.Join(project, "state") },
		"project inside the state":  func(c *Config) { c.Project, c.StateDir = filepath.Join(project, "dir"), project },
		"both the same":             func(c *Config) { c.StateDir = project },
		"unknown mode":              func(c *Config) { c.Mode = "overly" },
		"no mode":                   func(c *Config) { c.Mode = "" },
		"negative uid":              func(c *Config) { c.UID = -1 },
		"overlay, engine elsewhere": func(c *Config) { c.Mode = policy.ModeOverlay },
		"bind, engine elsewhere":    func(c *Config) { c.Mode = policy.ModeBind },
		"overlay, user namespace": func(c *Config) {
			c.Mode, c.Engine = policy.ModeOverlay, Engine{Local: true, UserNS: true}
		},
		"bind, user namespace": func(c *Config) { c.Mode, c.Engine = policy.ModeBind, Engine{Local: true, UserNS: true} },
		"overlay, refused before": func(c *Config) {
			c.Mode, c.Engine = policy.ModeOverlay, Engine{Local: true, Refused: "no such filesystem"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := ok
			edit(&cfg)
			if v, err := Prepare(t.Context(), cfg); err == nil {
				t.Errorf("got a view in mode %s, want an error", v.Mode)
			}
			if left, _ := os.ReadDir(state); len(left) > 0 {
				t.Errorf("left behind in the state directory: %v", left)
			}
		})
	}
}

func TestStateThroughASymlinkIsFound(t *testing.T) {
	project, elsewhere := t.TempDir(), t.TempDir()
	populate(t, project, "state/")
	link := filepath.Join(elsewhere, "link")
	if err := os.Symlink(filepath.Join(project, "state"), link); err != nil {
		t.Skip(err)
	}
	if _, err := Prepare(t.Context(), withTestDefaults(t, Config{Project: project, StateDir: link, Mode: policy.ModeCopy})); err == nil {
		t.Error("got no error for a state directory that is inside the project by way of a symlink")
	}
}

func TestAutoFallsToCopyAndSaysWhy(t *testing.T) {
	for _, engine := range []Engine{{}, {Local: true, UserNS: true}, {Local: true, Refused: "it said no"}} {
		v := prepare(t, Config{Project: t.TempDir(), Mode: policy.ModeAuto, UID: 1000, GID: 1000, Engine: engine})
		if v.Mode != policy.ModeCopy || len(v.Lowered) != 1 || !strings.Contains(v.Lowered[0], "overlay is not possible") {
			t.Errorf("%+v: mode %s, lowered %q", engine, v.Mode, v.Lowered)
		}
		if len(v.Mounts) != 1 || v.Mounts[0].Type != MountVolume || v.Mounts[0].Options != nil || !v.Mounts[0].NoCopy {
			t.Errorf("%+v: mounts %+v, want one plain volume", engine, v.Mounts)
		}
	}
}

// elsewhere is an engine that has every path below another.
type elsewhere struct{}

func (elsewhere) Of(path string) (string, bool) { return "/there" + path, true }

func TestReadonlyHasNoChanges(t *testing.T) {
	v := prepare(t, Config{Project: t.TempDir(), Mode: policy.ModeReadonly, Engine: Engine{Paths: elsewhere{}}})
	if _, err := v.Hide(t.Context()); err != nil {
		t.Fatal(err)
	}
	cs, err := v.Extract(t.Context(), Sources{})
	if err != nil || len(cs.Changes) > 0 || cs.Version != Version || cs.Base == "" || cs.Started.IsZero() {
		t.Errorf("got %+v, %v", cs, err)
	}
}

func TestDiscardLeavesNothing(t *testing.T) {
	for _, mode := range []policy.WorkspaceMode{policy.ModeAuto, policy.ModeCopy} {
		state, project := t.TempDir(), t.TempDir()
		populate(t, project, ".env=s", "d/.env=s")
		v := prepare(t, Config{
			Project: project, StateDir: state, Mode: mode, UID: os.Geteuid(), GID: os.Getegid(), Hide: matcherOf(t, ".env"),
			Engine: Engine{Local: true, SharesPIDs: true},
		})
		if _, err := v.Hide(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(v.Discard(), v.Discard()); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(state); len(left) > 0 {
			t.Errorf("%s: left behind: %v", v.Mode, left)
		}
	}
}

func TestAgentIDs(t *testing.T) {
	got, err := AgentIDs(t.TempDir(), IDs{UID: 1234, GID: 2345})
	if err != nil {
		t.Fatal(err)
	}
	want := IDs{UID: 1234, GID: 2345} // the project is root's, or there are no such ids
	if uid := os.Geteuid(); uid > 0 {
		want = IDs{UID: uid, GID: notZero(os.Getegid(), uid)}
	}
	if got != want {
		t.Errorf("AgentIDs = %+v, want %+v", got, want)
	}
}

func TestNotZero(t *testing.T) {
	if got := notZero(0, 1000); got != 1000 {
		t.Errorf("the agent would be in group 0: %d", got)
	}
	if got := notZero(27, 1000); got != 27 {
		t.Errorf("notZero(27) = %d", got)
	}
}
