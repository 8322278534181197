// Package image makes images reproducible: it builds a Dockerfile through an engine and rewrites the result so that the
// same inputs give the same digest, keeps the lock file that pins what a project runs, compares a rebuilt image with the
// locked one file by file, and lists the packages in it. It reads no environment, prints nothing, and never takes an
// image's word for what is in it: layers are hashed, and every archive is bounded.
package image

import (
	"context"
	"io"
	"time"

	"github.com/org/agent-sandbox/runner/engine"
)

// Engine is what building needs of a container engine.
type Engine interface {
	Build(ctx context.Context, b engine.Build, line func(string)) (engine.Built, error)
	Image(ctx context.Context, reference string) (engine.Image, error)
	Pull(ctx context.Context, reference string, line func(string)) error
	Save(ctx context.Context, id string) (io.ReadCloser, error)
	Load(ctx context.Context, archive io.Reader) error
	Tag(ctx context.Context, id, name string) error
	RemoveMade(ctx context.Context, made []string) error
	RemoveImage(ctx context.Context, id string, prune bool) error
}

// Labels that a built image carries, beside those of its Dockerfile.
const (
	LabelInputs = "agent-sandbox.build.inputs" // the digest of its inputs, see [Inputs.Digest]
	LabelSBOM   = "agent-sandbox.build.sbom"   // the digest of its list of packages
)

// earliest is the oldest date that we give to a file: zip archives know none before 1980, and tools that make them fail.
var earliest = time.Date(1980, 1, 2, 0, 0, 0, 0, time.UTC)
