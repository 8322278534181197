package runner

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/workspace"
	"github.com/org/agent-sandbox/runner/workspace/ovl"
)

// xattrs reads overlay attributes for a runner that may not: trusted.* are for root alone (xattr(7)). nil when it may.
func (r *run) xattrs() workspace.XattrReader {
	if r.attrs != nil || workspace.CanReadXattrs(r.view.Upper()) {
		return r.attrs
	}
	return xattrHelper{r}
}

// xattrHelper reads them in a container of our own guest program.
type xattrHelper struct{ run *run }

// Xattrs implements workspace.XattrReader. DAC_READ_SEARCH is for directories that the agent closed to others.
func (x xattrHelper) Xattrs(ctx context.Context, root string) (attrs map[string]ovl.Attrs, err error) {
	err = x.run.help(ctx, engine.Helper{
		Args: []string{link.ArgXattrs, "/upper"}, Capabilities: []string{"SYS_ADMIN", "DAC_READ_SEARCH"},
		Dir: engine.Mount{Source: x.run.enginePath(root), Target: "/upper", ReadOnly: true},
	}, func(out io.Reader) error {
		attrs, err = ovl.Parse(out)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the overlay's attributes: %w", err)
	}
	return attrs, nil
}

// discardView removes what the view left in the run's directory, unless the agent's work is still to be read from there.
func (r *run) discardView(ctx context.Context) error {
	if r.view == nil {
		return nil
	}
	if r.unread() {
		return r.preserveView()
	}
	if !r.dead && (r.reported || !r.began) {
		if err := r.dropRecovery(); err != nil {
			return err
		}
	}
	err := r.view.Discard()
	if left, ok := errors.AsType[*workspace.LeftoverError](err); ok {
		err = r.help(context.WithoutCancel(ctx), engine.Helper{
			Args: []string{link.ArgEmpty, "/left"}, Dir: engine.Mount{Source: r.enginePath(left.Dir), Target: "/left"},
		}, func(io.Reader) error { return nil })
		err = errors.Join(err, r.view.Discard())
	}
	if err != nil {
		return fmt.Errorf("clean the workspace up: %w", err)
	}
	return nil
}

// help runs our guest program as root in a container that sees one directory of the run, has no network, and runs
// nothing of the agent's. read gets what it prints.
func (r *run) help(ctx context.Context, h engine.Helper, read func(io.Reader) error) (err error) {
	h.Run, h.Image, h.Guest = r.id, r.image.ID, r.plan.Container.Guest
	done := r.watcher.creating()
	c, err := r.engine.CreateHelper(ctx, h)
	done()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeContainer(ctx, c)) }()
	diag := &tail{limit: maxDiagnosis}
	conn, err := c.Attach(ctx, diag)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := c.Start(ctx); err != nil {
		return err
	}
	err = read(conn)
	_, copyErr := io.Copy(io.Discard, conn) // until it has ended
	if words := diag.String(); words != "" {
		err = errors.Join(err, errors.New(event.Printable(words)))
	}
	return errors.Join(err, copyErr)
}
