package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// recovery is what another process needs to read what the agent of a run changed. It is written before there is an agent, and removed when the
// changes have been read.
type recovery struct {
	Version int             `json:"version"`
	View    workspace.Saved `json:"view"`
	Commit  string          `json:"commit,omitempty"`
	Head    string          `json:"head,omitempty"`
	UID     int             `json:"uid"`
	GID     int             `json:"gid"`
	Engine  string          `json:"engine"` // its id
	Image   engine.Image    `json:"image"`
	// Reject and Warn are the policy's own protected paths, Outputs the files that it names.
	Reject  []policy.Pattern `json:"reject"`
	Warn    []policy.Pattern `json:"warn"`
	Outputs []policy.Output  `json:"outputs"`
	// Secrets: the run had credentials. Nobody who reads its changes later knows them.
	Secrets bool `json:"secrets"`
}

const recoveryVersion = 1

// saveRecovery is called before the agent exists, and after its view is complete.
func (r *run) saveRecovery() error {
	p := r.cfg.Policy
	k := recovery{
		Version: recoveryVersion, View: r.view.Saved(), Commit: r.head.commit, Head: r.head.ref, UID: r.ids.UID, GID: r.ids.GID,
		Engine: r.engine.Facts().ID, Image: r.image, Reject: p.Workspace.Protect.Reject, Warn: p.Workspace.Protect.Warn,
		Outputs: p.Evidence.Outputs, Secrets: len(p.Credentials) > 0,
	}
	k.Image.Env, k.Image.Reference = nil, ""
	return r.dir.WriteJSON(runs.RecoveryFile, k)
}

// readRecovery reads it. Patterns are parsed again: what is no pattern is an error.
func readRecovery(dir *runs.Run) (k recovery, err error) {
	var text struct {
		recovery
		Reject []string `json:"reject"`
		Warn   []string `json:"warn"`
	}
	if err := dir.ReadJSON(runs.RecoveryFile, &text); err != nil {
		return k, err
	}
	k = text.recovery
	if k.Version != recoveryVersion {
		return k, fmt.Errorf("%s is of version %d, and this program knows %d\nhint: use the version of agent-sandbox that ran the run",
			dir.Path(runs.RecoveryFile), k.Version, recoveryVersion)
	}
	for _, list := range []struct {
		from []string
		to   *[]policy.Pattern
	}{{text.Reject, &k.Reject}, {text.Warn, &k.Warn}} {
		for _, s := range list.from {
			p, err := policy.ParsePattern(s)
			if err != nil {
				return k, fmt.Errorf("%s: %q: %w", dir.Path(runs.RecoveryFile), s, err)
			}
			*list.to = append(*list.to, p)
		}
	}
	return k, nil
}

// policy is as much of the run's as reading its changes takes.
func (k recovery) policy() *policy.Policy {
	p := *policy.Default()
	p.Workspace.Mode = k.View.Mode
	p.Workspace.Protect = policy.Protect{Reject: k.Reject, Warn: k.Warn}
	p.Evidence.Outputs = k.Outputs
	return &p
}

func (r *run) dropRecovery() error {
	return errors.Join(ignoreMissing(os.Remove(r.dir.Path(runs.RecoveryFile))), ignoreMissing(os.Remove(r.dir.Path(recoveryAside))))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// recoveryAside is where the file is while it must not be found.
const recoveryAside = ".tmp-" + runs.RecoveryFile

// asideRecovery puts it there, without a need for room on the disk. back undoes that.
func (r *run) asideRecovery() (back func() error, err error) {
	at, aside := r.dir.Path(runs.RecoveryFile), r.dir.Path(recoveryAside)
	return func() error { return ignoreMissing(os.Rename(aside, at)) }, ignoreMissing(os.Rename(at, aside))
}

// unread tells whether the view has what the agent wrote, and nothing else does.
func (r *run) unread() bool { return r.began && !r.saved && r.view.Mode == policy.ModeOverlay }

// preserveView leaves what nobody could read where it is, and says so.
func (r *run) preserveView() error {
	err := r.view.Preserve()
	r.rec.Emit(event.Warning{
		Message: "what the agent changed could not be read, and is kept unread in " + event.Printable(r.view.Upper()),
		Mend:    fmt.Sprintf("`agent-sandbox doctor --clean` reads it; `agent-sandbox discard %s` throws it away", r.id),
	})
	return err
}

// full says of a disk that had no room for the changes which one it is, how much is lacking and what to do.
func (r *run) full(ctx context.Context, err error, cs *workspace.ChangeSet) error {
	if err == nil || !runs.DiskFull(err) {
		return err
	}
	dir := r.dir.Dir()
	text := ""
	if free, freeErr := workspace.Free(dir); freeErr == nil {
		text = fmt.Sprintf(": %d KiB are free there", free>>10)
		if need := r.need(ctx, cs); need > free {
			text += fmt.Sprintf(", and at least %d KiB more are needed", (need-free+1023)>>10)
		}
	}
	return fmt.Errorf("%w; the disk of %s has no room for the list of the changes%s\nhint: free some space there: `agent-sandbox discard RUN` removes a run; "+
		"then `agent-sandbox doctor --clean` reads the changes, whose files stay in %s until then. The project is as it was. "+
		"For later runs set XDG_STATE_HOME to a directory on a larger disk", err, dir, text, r.view.Upper())
}

// need is how many bytes the list of the changes and the patch take; 0 when that can't be told.
func (r *run) need(ctx context.Context, cs *workspace.ChangeSet) int64 {
	if cs == nil {
		return 0
	}
	root, err := os.OpenRoot(r.cfg.Project)
	if err != nil {
		return 0
	}
	defer root.Close()
	var n counter
	if workspace.WritePatch(ctx, &n, cs, patchConfig(root, r.view.Blobs(cs), cs)) != nil || cs.Write(&n) != nil {
		return 0
	}
	return int64(n)
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

var _ io.Writer = (*counter)(nil)
