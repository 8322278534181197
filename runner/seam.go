//go:build !docker

package runner

import (
	"time"

	"github.com/org/agent-sandbox/runner/egress"
	"github.com/org/agent-sandbox/runner/engine"
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

func (seam) clock() func() time.Time { return nil }

func (seam) weaken(*egress.Config) {}

func (seam) evidence() manifest.Weakened { return manifest.Weakened{} }
