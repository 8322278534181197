package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/agent-sandbox/runner/engine"
)

// Builder builds images.
type Builder struct {
	Engine Engine
	// Dir is where images are taken apart: it needs three times the size of one. Empty for the system's place for
	// temporary files.
	Dir      string
	BuildKit bool // which of the engine's builders to use; the result is the same
	NoCache  bool // build every step anew
	Offline  bool // the build's commands have no network
	// Pull gets images that a Dockerfile starts from and the engine lacks.
	Pull bool
	// Epoch is the time of everything that the build makes (https://reproducible-builds.org/specs/source-date-epoch/); zero
	// for when the base was made.
	Epoch time.Time
	// CA are certificates that the build may trust beside System, in PEM; neither will be in the image.
	CA, System []byte
	Line       func(string) // gets the build's output, line by line; required
}

// Result is an image that was built.
type Result struct {
	Name   string // the tag that it has
	ID     string // digest of its configuration
	Digest string // digest of its manifest
	Inputs string // digest of its inputs
	Arch   string
	Bases  []Base
	Epoch  time.Time
	// Offline: the build's commands had no network.
	Offline bool
	SBOM    *SBOM
}

// Base is an image that a Dockerfile starts from.
type Base struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest"` // of its manifest if the engine knows it, else its id
}

// Tag is the name of the image that is built from inputs with this digest.
func Tag(inputs string) string {
	return "agent-sandbox-build:" + strings.TrimPrefix(inputs, "sha256:")[:16]
}

// Build builds in, normalises the result, and leaves it in the engine under the name of its inputs.
func (b *Builder) Build(ctx context.Context, in *Inputs) (*Result, error) {
	var result *Result
	err := b.build(ctx, in, func(_ string, n *normal, r *Result) error {
		if err := b.load(ctx, n); err != nil {
			return err
		}
		id, err := b.loaded(ctx, n)
		if err != nil {
			return err
		}
		r.Name, result = Tag(r.Inputs), r
		return b.Engine.Tag(ctx, id, r.Name)
	})
	return result, err
}

// build builds and normalises; use gets the result and a directory for more files, which is gone afterwards.
func (b *Builder) build(ctx context.Context, in *Inputs, use func(dir string, n *normal, r *Result) error) (err error) {
	base, bases, err := b.bases(ctx, in)
	if err != nil {
		return err
	}
	sh := shape{base: base.Layers, epoch: b.epoch(base), inputs: in.Digest(), secret: secrets(b.CA)}
	dir, err := os.MkdirTemp(b.Dir, "agent-sandbox-image-")
	if err != nil {
		return fmt.Errorf("build image: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	built, err := b.run(ctx, in, sh.epoch)
	defer func() { err = errors.Join(err, b.Engine.RemoveMade(ctx, built.Made)) }()
	if err != nil {
		return err
	}
	b.Line("normalising the image")
	s, err := b.fetch(ctx, dir, built.ID)
	if err != nil {
		return err
	}
	n, err := normalise(dir, s, sh)
	if err != nil {
		return err
	}
	return use(dir, n, &Result{
		ID: n.ID(), Digest: n.Digest(), Inputs: sh.inputs, Arch: s.config.Architecture, Bases: bases, Epoch: sh.epoch, Offline: b.Offline, SBOM: n.bill,
	})
}

func (b *Builder) epoch(base engine.Image) time.Time {
	at := b.Epoch
	if at.IsZero() {
		at = base.Created
	}
	if at.Before(earliest) {
		at = earliest
	}
	return at.UTC().Truncate(time.Second)
}

// bases finds the images that a Dockerfile starts from; the first result is the one that the image is built on.
func (b *Builder) bases(ctx context.Context, in *Inputs) (base engine.Image, all []Base, err error) {
	names, err := in.Dockerfile.Bases(in.Args)
	if err != nil {
		return base, nil, err
	}
	seen := map[string]bool{}
	for _, name := range names {
		base = engine.Image{}
		if name == noBase {
			continue
		}
		if base, err = b.find(ctx, name); err != nil {
			return base, nil, err
		}
		if !seen[name] {
			seen[name] = true
			all = append(all, Base{Reference: name, Digest: DigestOf(base)})
		}
	}
	return base, all, nil
}

func (b *Builder) find(ctx context.Context, name string) (engine.Image, error) {
	img, err := b.Engine.Image(ctx, name)
	if !errors.Is(err, engine.ErrNoImage) || !b.Pull {
		return img, err
	}
	if failed := b.Engine.Pull(ctx, name, b.Line); failed != nil {
		return img, fmt.Errorf("%w, and it can't be pulled: %v", err, failed)
	}
	return b.Engine.Image(ctx, name)
}

// DigestOf is the digest of an image's manifest, or the image's id if it has been in no registry that the engine knows of.
func DigestOf(img engine.Image) string { return cmp.Or(img.Digest(), img.ID) }

// run has the engine build.
func (b *Builder) run(ctx context.Context, in *Inputs, at time.Time) (built engine.Built, err error) {
	dockerfile, extra := in.trust(b.CA, b.System)
	extra = append(extra, in.agents...)
	refused := ""
	line := func(text string) {
		if at := strings.Index(text, refusal); at >= 0 {
			refused = strings.TrimSpace(text[at+len(refusal):])
		}
		b.Line(text)
	}
	r, w := io.Pipe()
	var sending errgroup.Group
	sending.Go(func() error { return w.CloseWithError(in.writeContext(w, at, dockerfile, extra)) })
	built, err = b.Engine.Build(ctx, engine.Build{
		Context: r, Dockerfile: dockerfileName, Args: in.Args, NoCache: b.NoCache, Offline: b.Offline, BuildKit: b.BuildKit,
	}, line)
	if err != nil && refused != "" {
		err = fmt.Errorf("the agents can't be installed: %s\nhint: start from an image that has npm or apt-get, or install them in the Dockerfile", refused)
	}
	_ = r.Close() // never fails; it ends the sender if the engine stopped listening
	return built, errors.Join(err, sent(sending.Wait()))
}

func (b *Builder) fetch(ctx context.Context, dir, id string) (*saved, error) {
	r, err := b.Engine.Save(ctx, id)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return unpack(dir, r)
}

func (b *Builder) load(ctx context.Context, n *normal) error {
	r, w := io.Pipe()
	var sending errgroup.Group
	sending.Go(func() error { return w.CloseWithError(n.write(w)) })
	err := b.Engine.Load(ctx, r)
	_ = r.Close()
	return errors.Join(err, sent(sending.Wait()))
}

// sent is the error of sending something to an engine; that the engine did not want all of it is none.
func sent(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}

// loaded is the id of the image in the engine. One with the classic store calls it by its configuration, one with
// containerd's by its manifest.
func (b *Builder) loaded(ctx context.Context, n *normal) (string, error) {
	for _, id := range []string{n.ID(), n.Digest()} {
		_, err := b.Engine.Image(ctx, id)
		if !errors.Is(err, engine.ErrNoImage) {
			return id, err
		}
	}
	return "", fmt.Errorf("the engine took the image in, and knows neither %s nor %s", n.ID(), n.Digest())
}
