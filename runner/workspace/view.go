package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/workspace/ovl"
)

// MountType is how the engine gets a mount.
type MountType string

// The mount types, by the engine API's names.
const (
	MountBind   MountType = "bind"   // Source is a path on the host
	MountVolume MountType = "volume" // anonymous: no name, removed with the container
	MountTmpfs  MountType = "tmpfs"  // empty; always ReadOnly here
)

// Mount is one mount that the container needs. All of a view's mounts belong together: leaving one out
// shows what the policy hides, or lets the agent write what it protects.
type Mount struct {
	Type     MountType
	Source   string            // of a bind, an absolute path on the host
	Path     string            // slash-separated, relative to the workspace's place in the container; "" is that place
	ReadOnly bool              // mount it read-only
	Options  map[string]string // driver options of a volume, driver "local"; nil for a plain one

	// NoCopy keeps the engine from filling a volume with what the image has at that path, which would
	// mount the overlay before its time and put the image's files into the change set.
	NoCopy bool

	// NonRecursive leaves out what is mounted inside the project: it is not the project, and the engines
	// make only the topmost mount read-only.
	NonRecursive bool
}

// View is a project as one agent sees it: made by Prepare, read back by Extract, or dropped by Discard.
type View struct {
	Mode    policy.WorkspaceMode // the mode in use; never auto
	Lowered []string             // what could not be had and what that means, one sentence each, for the manifest and the terminal
	Mounts  []Mount              // the workspace itself, then what goes on top of it, parents first

	cfg       Config
	started   time.Time
	hidden    []string    // sorted
	swap      idSwap      // of the lower layer; zero when its ids are as they are on the host
	held      []io.Closer // file descriptors that the engine opens through /proc
	index     index       // of bind and copy: the project at the start
	extracted bool
	recent    *recent // of what Extract read
	taken     *taken  // what Extract took of upper/; nil: nothing
}

// Sources are where Extract reads from. Each mode needs its own and ignores the rest.
type Sources struct {
	// Xattrs reads the overlay's attributes when this process can't. nil reads them directly, for which
	// it needs CAP_SYS_ADMIN in the first user namespace: see CanReadXattrs.
	Xattrs XattrReader

	// Keep leaves work/ for Discard: the engine may still have the overlay mounted, with nobody in it. What no change needs is there until
	// Settle, so that Preserve can take the extraction back as long as its change set is not saved.
	Keep bool

	// Tar is the workspace as the engine archives it, its directory first. Mode copy.
	Tar io.Reader
}

// XattrReader reads the overlay attributes of every directory below root, which is the upper directory of a
// run: in a helper container, say, with ovl.Dump there and ovl.Parse here. Directories are named by their
// slash-separated path relative to root, in raw bytes; those without attributes are left out.
type XattrReader interface {
	Xattrs(ctx context.Context, root string) (map[string]ovl.Attrs, error)
}

// Prepare sets a view up. It does what is cheap: in mode overlay nothing that grows with the project.
// The caller then calls Hide before the container starts, Close after it did, and Extract or Discard at the end,
// Discard also when the container never started.
func Prepare(ctx context.Context, cfg Config) (*View, error) {
	cfg, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	v := &View{Mode: cfg.Mode, cfg: cfg, started: time.Now()}
	switch cfg.Mode {
	case policy.ModeOverlay:
		err = v.prepareOverlay()
	case policy.ModeCopy:
		err = v.prepareCopy()
	case policy.ModeBind, policy.ModeReadonly:
		err = v.prepareBind(ctx)
	case policy.ModeAuto:
		err = v.prepareAuto()
	default:
		err = fmt.Errorf("prepare workspace: unknown mode %q", cfg.Mode)
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// prepareAuto takes an overlay where it can be had and a copy elsewhere. Never bind: that would let the
// agent's changes reach the host unseen.
func (v *View) prepareAuto() error {
	v.Mode = policy.ModeOverlay
	err := v.prepareOverlay()
	var no *UnsupportedError
	if !errors.As(err, &no) {
		return err
	}
	v.Mode = policy.ModeCopy
	v.lower("the project is copied in and out, because an overlay is not possible: %s", no.Reason)
	return v.prepareCopy()
}

func (v *View) lower(format string, args ...any) {
	v.Lowered = append(v.Lowered, fmt.Sprintf(format, args...))
}

// Upper is the directory that holds what the agent changed, "" unless Mode is overlay. For a helper that
// reads attributes from it; nothing else should.
func (v *View) Upper() string {
	if v.Mode != policy.ModeOverlay {
		return ""
	}
	return v.upper()
}

// Blobs gives the store with the contents of the change set that Extract returned. It has what was read last in memory.
func (v *View) Blobs(cs *ChangeSet) Blobs {
	b := cs.Blobs(v.cfg.StateDir)
	b.recent = v.recent
	return b
}

// Started is when the view was prepared: what changes on the host later is reported as HostChanged.
func (v *View) Started() time.Time { return v.started }

// Close releases the descriptors through which the engine mounts the project. Call it after the container has
// started; until then the mount needs them. It may be called twice.
func (v *View) Close() error {
	var errs []error
	for _, c := range v.held {
		errs = append(errs, c.Close())
	}
	v.held = nil
	return errors.Join(errs...)
}
