//go:build docker

package runner

import (
	"time"

	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/manifest"
)

// seam lets the escape suite, which is in this package, leave protections out.
type seam struct {
	container engine.Weakened
	unchecked bool   // the agent is started whatever was measured
	laneOff   bool   // connections go through the engine
	noDisk    bool   // the disk is not guarded
	unmasked  bool   // secrets are not taken out of what the run says
	authority []byte // a certificate that the sandbox is to trust
	egress    egress.Weakened
	limits    egress.Limits    // of the gateway
	now       func() time.Time // of credentials; nil: the system's
	manifest  manifest.Weakened
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

func (s seam) clock() func() time.Time { return s.now }

func (s seam) weaken(cfg *egress.Config) { cfg.Weakened, cfg.Limits = s.egress, s.limits }

func (s seam) evidence() manifest.Weakened { return s.manifest }
