//go:build !docker

package runner

import (
	"io"
	"net/netip"
	"time"

	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/manifest"
)

// seam is part of every Config and empty. In builds with the tag docker the escape suite reaches through it, and
// leaves protections out to show that each one is needed.
type seam struct{}

func (seam) weakened() engine.Weakened { return engine.Weakened{} }

func (seam) verdict(err error) error { return err }

func (seam) noLane() bool { return false }

func (seam) skipDisk() bool { return false }

func (seam) testAuthority() []byte { return nil }

func (seam) skipRedaction() bool { return false }

func (seam) keepsTokens() bool { return false }

func (seam) clock() func() time.Time { return nil }

func (seam) weaken(*egress.Config) {}

func (seam) evidence() manifest.Weakened { return manifest.Weakened{} }

func (seam) newLink(conn io.ReadWriteCloser) (*link.Session, error) { return link.NewRunner(conn) }

func (seam) readFrame(control io.Reader) (link.Frame, error) { return link.ReadFrame(control) }

func (seam) streams() int { return link.MaxStreams }

func (seam) unmeasured() (*link.Measurement, error) { return nil, errUnmeasured }

func (seam) resolve(g *egress.Gateway, name, recordType string) (netip.Addr, bool, string) {
	return g.Resolve(name, recordType)
}

func (seam) boundless(*event.Refusals) {}
