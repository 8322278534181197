//go:build docker

package runner

import (
	"context"
	"io"
	"net/netip"
	"time"

	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/manifest"
)

// seam lets the escape suite, which is in this package, leave protections out.
type seam struct {
	container engine.Weakened
	unchecked bool   // the agent is started whatever was measured
	laneOff   bool   // connections go through the engine
	noDisk    bool   // the disk is not guarded
	unrevoked bool   // what was issued for the run stays good
	unmasked  bool   // secrets are not taken out of what the run says
	authority []byte // a certificate that the sandbox is to trust
	egress    egress.Weakened
	limits    egress.Limits    // of the gateway
	now       func() time.Time // of credentials; nil: the system's
	manifest  manifest.Weakened
	link      link.Weakened
	disorder  bool                                                // a guest may say anything before it has measured the sandbox
	asked     func(context.Context, string) ([]netip.Addr, error) // asks a resolver for each name that the sandbox asks for
	listsAll  bool                                                // every refusal is listed
}

func (s seam) weakened() engine.Weakened { return s.container }

func (s seam) verdict(err error) error {
	if s.unchecked {
		return nil
	}
	return err
}

func (s seam) noLane() bool { return s.laneOff }

func (s seam) skipDisk() bool { return s.noDisk }

func (s seam) testAuthority() []byte { return s.authority }

func (s seam) skipRedaction() bool { return s.unmasked }

func (s seam) keepsTokens() bool { return s.unrevoked }

func (s seam) clock() func() time.Time { return s.now }

func (s seam) weaken(cfg *egress.Config) { cfg.Weakened, cfg.Limits = s.egress, s.limits }

func (s seam) evidence() manifest.Weakened { return s.manifest }

func (s seam) newLink(conn io.ReadWriteCloser) (*link.Session, error) {
	return link.NewWeakened(conn, s.link)
}

func (s seam) readFrame(control io.Reader) (link.Frame, error) {
	if s.link.Frames {
		return link.ReadAnyFrame(control)
	}
	return link.ReadFrame(control)
}

func (s seam) streams() int {
	if s.link.Streams {
		return 4 * link.MaxStreams
	}
	return link.MaxStreams
}

func (s seam) unmeasured() (*link.Measurement, error) {
	if s.disorder {
		return &link.Measurement{}, nil
	}
	return nil, errUnmeasured
}

func (s seam) resolve(g *egress.Gateway, name, recordType string) (netip.Addr, bool, string) {
	if s.asked != nil {
		_, _ = s.asked(context.Background(), name)
	}
	return g.Resolve(name, recordType)
}

func (s seam) boundless(r *event.Refusals) {
	if s.listsAll {
		r.ListAll()
	}
}
