// Package workspace shows a project to an agent and says afterwards what the agent changed.
//
// A View is how the agent sees the project: through an overlay, as a copy, or bound. Extract reads the changes back as a
// ChangeSet, with the new contents in a blob store; Gate classifies them, SavePatch writes them as a patch for git,
// and Apply makes them on the host. All that comes from the agent is bounded, no symlink of it is followed, no
// protection that can't be put up is left out silently, and git never runs under a configuration that the agent could write.
package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/org/agent-sandbox/policy"
)

// Config says what to show to the agent, and how.
type Config struct {
	// Project is the directory that the agent works in, on the host. Required; symlinks in it are resolved once.
	Project string

	// StateDir is the run's own directory (0700), which exists. upper/, work/ and blobs/ are made in it.
	// It may lie neither inside the project nor around it.
	StateDir string

	// Mode is what the policy asks for. Required.
	Mode policy.WorkspaceMode

	// UID and GID are the agent's, as AgentIDs chose them. 0 stands for root and is taken only because the
	// policy said so: nothing here turns another id into it.
	UID, GID int

	// Hide says which paths the agent must not see. Required, so that forgetting it is an error and not a leak;
	// an empty policy.PatternSet hides nothing.
	Hide Matcher

	// Search is the walk for Hide, if it has begun already; nil: View.Hide walks.
	Search *Search

	// Protect names the paths that bind mode mounts read-only over the project, the reject tier. Required in
	// mode bind. The other modes have the gate at extraction instead.
	Protect Matcher

	// Engine is what is known of the engine.
	Engine Engine

	// Limits bound what is read back from the agent. Zero fields take the defaults.
	Limits Limits
}

// Matcher is a set of patterns of the policy. Match gets a clean slash-separated path relative to the project,
// in raw bytes. What matches as a directory matches as a whole: nothing below it is asked.
type Matcher interface {
	Match(path string, dir bool) bool
	// MatchEntry is Match for a path that has no directory above it which matches.
	MatchEntry(path string, dir bool) bool
}

// Engine holds the facts about a container engine that decide which views it can give. The zero value is an
// engine of which nothing is known, and it gets a copy.
type Engine struct {
	Local      bool   // runs on this kernel and resolves paths as this process does
	Paths      Paths  // where one that isn't Local has this process' directories; nil: nowhere
	Apart      string // why there are no Paths; "" when nobody looked
	UserNS     bool   // rootless, or with userns-remap: uids inside are others than outside
	SharesPIDs bool   // /proc there is /proc here: SharesPIDs(socket) proves it
	Refused    string // why an earlier attempt to start with an overlay failed; "" when there was none
}

// Paths translates paths of this process into those of an engine that sees the same files under other names: this process is in one of
// its containers. ok is false for what the engine was not proven to have.
type Paths interface {
	Of(path string) (there string, ok bool)
}

// path is where the engine has a path of this process.
func (e Engine) path(here string) (string, error) {
	if e.Local {
		return here, nil
	}
	if e.Paths != nil {
		if there, ok := e.Paths.Of(here); ok {
			return there, nil
		}
	}
	return "", fmt.Errorf("the engine can't see %s", here)
}

// blind says why the engine can't see this process' directories; "" when it can.
func (e Engine) blind() string {
	switch {
	case e.Local || e.Paths != nil:
		return ""
	case e.Apart != "":
		return e.Apart
	}
	return "the engine does not run on this host and can't see the project"
}

// Limits bound one change set. What is over them ends the extraction with a *LimitError.
type Limits struct {
	Changes int   // entries of the change set; default and at most MaxChanges
	Bytes   int64 // all new file contents together; default 8 GiB
	Depth   int   // directories above a path; default 512
}

const (
	defaultBytes = 8 << 30
	defaultDepth = 512
)

func (l Limits) withDefaults() Limits {
	if l.Changes <= 0 || l.Changes > MaxChanges {
		l.Changes = MaxChanges
	}
	if l.Bytes <= 0 {
		l.Bytes = defaultBytes
	}
	if l.Depth <= 0 {
		l.Depth = defaultDepth
	}
	return l
}

// LimitError says that the agent left more behind than the limits allow. The change set that comes with it
// holds what was found until then; it is for people to look at, not for apply.
type LimitError struct {
	What  string // "changes", "bytes", "depth" or "path length"
	Limit int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("the workspace holds more than the limit of %d %s", e.Limit, e.What)
}

// UnsupportedError says that a mode can't be had here. Mode auto goes on to the next one instead of returning it.
type UnsupportedError struct {
	Mode   policy.WorkspaceMode
	Reason string
	Hint   string // what would mend it; "" when nothing would
}

func (e *UnsupportedError) Error() string {
	s := fmt.Sprintf("workspace mode %s is not possible here: %s", e.Mode, e.Reason)
	if e.Hint != "" {
		s += "\nhint: " + e.Hint
	}
	return s
}

func unsupported(mode policy.WorkspaceMode, hint, format string, args ...any) error {
	return &UnsupportedError{Mode: mode, Reason: fmt.Sprintf(format, args...), Hint: hint}
}

// resolve returns the configuration with real, absolute paths, or why it can't be used.
func (c Config) resolve() (Config, error) {
	if c.Hide == nil {
		return c, errors.New("prepare workspace: no hide patterns given")
	}
	if c.Protect == nil && c.Mode == policy.ModeBind {
		return c, errors.New("prepare workspace: no protected paths given")
	}
	if c.UID < 0 || c.GID < 0 {
		return c, fmt.Errorf("prepare workspace: no agent has the ids %d:%d", c.UID, c.GID)
	}
	for _, p := range []*string{&c.Project, &c.StateDir} {
		real, err := realDir(*p)
		if err != nil {
			return c, fmt.Errorf("prepare workspace: %w", err)
		}
		*p = real
	}
	// Inside, the agent would see the state of other runs; around, the lower layer would hold the upper one.
	if within(c.Project, c.StateDir) || within(c.StateDir, c.Project) {
		return c, fmt.Errorf("prepare workspace: the state directory %s and the project %s overlap\nhint: choose a smaller --workspace, or set XDG_STATE_HOME to a directory elsewhere", c.StateDir, c.Project)
	}
	c.Limits = c.Limits.withDefaults()
	return c, nil
}

func realDir(p string) (string, error) {
	if p == "" {
		return "", errors.New("no directory given")
	}
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", &fs.PathError{Op: "open", Path: real, Err: errors.New("not a directory")}
	}
	return real, nil
}

// within reports whether p is dir or below it. Both are absolute and clean.
func within(dir, p string) bool {
	rel, err := filepath.Rel(dir, p)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// IDs is a user and a group id.
type IDs struct{ UID, GID int }

// DefaultIDs are the agent's where nobody else's suit: those of the user in our image.
func DefaultIDs() IDs { return IDs{UID: 1000, GID: 1000} }

// AgentIDs chooses who the agent is inside: the runner's user unless that is root, else the owner of the project
// unless that is root, else fallback. It never returns 0 for either id, unless fallback has it.
func AgentIDs(project string, fallback IDs) (IDs, error) {
	if runtime.GOOS == "windows" {
		return fallback, nil
	}
	if uid := os.Geteuid(); uid != 0 {
		return IDs{UID: uid, GID: notZero(os.Getegid(), uid)}, nil
	}
	info, err := os.Stat(project)
	if err != nil {
		return IDs{}, fmt.Errorf("owner of the project: %w", err)
	}
	if owner := statOf(info).owner; owner.UID != 0 {
		return IDs{UID: owner.UID, GID: notZero(owner.GID, owner.UID)}, nil
	}
	return fallback, nil
}

// notZero keeps the agent out of group 0, to which images give what they keep from others.
func notZero(gid, otherwise int) int {
	if gid == 0 {
		return otherwise
	}
	return gid
}
