package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// Build says what to build. Its context comes as a stream, not through a session with the engine: both of the engine's
// builders take that.
type Build struct {
	Context    io.Reader         // a tar stream with the Dockerfile and what it copies
	Dockerfile string            // its path in the stream
	Args       map[string]string // build arguments
	Target     string            // the stage to build; empty for the last
	NoCache    bool
	Offline    bool // the build's commands have no network
	BuildKit   bool // use BuildKit instead of the classic builder
}

// ErrBuild tells that a build failed by its own doing: a command in it, or the Dockerfile.
var ErrBuild = errors.New("the build failed")

// maxBuildLine bounds one message of a build in bytes.
const maxBuildLine = 4 << 20

// PrefersBuildKit tells which builder the engine uses when it isn't told.
func (e *Engine) PrefersBuildKit(ctx context.Context) (bool, error) {
	ping, err := e.api.Ping(ctx)
	if err != nil {
		return false, fmt.Errorf("container engine: %w", err)
	}
	return ping.BuilderVersion == build.BuilderBuildKit, nil
}

// Build builds an image without a name. Each line of the build's output goes to line, as it comes and as untrusted as it
// is. The error wraps ErrBuild if the build came to an end that it chose itself; there can be something made all the same.
func (e *Engine) Build(ctx context.Context, b Build, line func(string)) (built Built, err error) {
	noted := &steps{}
	if b.NoCache || b.BuildKit {
		if noted, err = e.steps(ctx); err != nil {
			return built, err
		}
	}
	id, err := e.build(ctx, b, noted, line)
	made, failed := e.madeBy(ctx, noted)
	if built.Made = made; err == nil {
		built.ID = id
	}
	return built, errors.Join(err, failed)
}

func (e *Engine) build(ctx context.Context, b Build, noted *steps, line func(string)) (id string, err error) {
	opts := build.ImageBuildOptions{
		Context: b.Context, Dockerfile: b.Dockerfile, Target: b.Target, NoCache: b.NoCache,
		Remove: true, ForceRemove: true, BuildArgs: map[string]*string{}, Version: build.BuilderV1,
	}
	for name, value := range b.Args {
		opts.BuildArgs[name] = &value
	}
	if b.Offline {
		opts.NetworkMode = "none"
	}
	if b.BuildKit {
		opts.Version = build.BuilderBuildKit
	}
	resp, err := e.api.ImageBuild(ctx, b.Context, opts)
	if err != nil {
		return "", fmt.Errorf("build image: %w", err)
	}
	defer resp.Body.Close()
	trace := &buildTrace{line: line, names: map[string]bool{}}
	err = eachMessage(resp.Body, func(m message) error {
		switch {
		case m.Error != "":
			return fmt.Errorf("%w: %s", ErrBuild, strings.TrimSpace(m.Error))
		case m.ID == "moby.buildkit.trace":
			return trace.add(m.Aux)
		case m.Stream != "":
			noted.text(m.Stream)
			trace.text(m.Stream)
		case len(m.Aux) > 0:
			var aux struct{ ID string }
			if err := json.Unmarshal(m.Aux, &aux); err != nil {
				return fmt.Errorf("build image: %w", err)
			}
			id = aux.ID // of each stage; the last one's is the result
			noted.note(id)
		}
		return nil
	})
	if err == nil && id == "" {
		err = errors.New("build image: the engine names no result")
	}
	return id, err
}

// message is one line of an engine's report on something that takes time.
type message struct {
	ID     string          `json:"id"`
	Stream string          `json:"stream"`
	Status string          `json:"status"`
	Error  string          `json:"error"`
	Aux    json.RawMessage `json:"aux"`
}

// eachMessage calls f with the messages of a report, each bounded.
func eachMessage(r io.Reader, f func(message) error) error {
	lines := newLineReader(r)
	for {
		b, err := lines.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the engine's report: %w", err)
		}
		if b = bytes.TrimSpace(b); len(b) == 0 {
			continue
		}
		var m message
		if err := json.Unmarshal(b, &m); err != nil {
			return fmt.Errorf("read the engine's report: %w", err)
		}
		if err := f(m); err != nil {
			return err
		}
	}
}

// Pull gets an image from its registry.
func (e *Engine) Pull(ctx context.Context, reference string, line func(string)) error {
	r, err := e.api.ImagePull(ctx, reference, image.PullOptions{})
	if err != nil {
		return fmt.Errorf("pull %q: %w", reference, err)
	}
	defer r.Close()
	return eachMessage(r, func(m message) error {
		if m.Error != "" {
			return fmt.Errorf("pull %q: %s", reference, m.Error)
		}
		if m.ID == "" && m.Status != "" { // the rest is the progress of each layer
			line(m.Status)
		}
		return nil
	})
}

// Save returns an image as `docker save` writes it (https://github.com/moby/docker-image-spec).
func (e *Engine) Save(ctx context.Context, id string) (io.ReadCloser, error) {
	r, err := e.api.ImageSave(ctx, []string{id})
	if err != nil {
		return nil, fmt.Errorf("save image %s: %w", id, err)
	}
	return r, nil
}

// Load takes in an image as Save returns it.
func (e *Engine) Load(ctx context.Context, archive io.Reader) error {
	resp, err := e.api.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	defer resp.Body.Close()
	return eachMessage(resp.Body, func(m message) error {
		if m.Error != "" {
			return fmt.Errorf("load image: %s", m.Error)
		}
		return nil
	})
}

// Tag gives an image a name, which another one may lose by it.
func (e *Engine) Tag(ctx context.Context, id, name string) error {
	if err := e.api.ImageTag(ctx, id, name); err != nil {
		return fmt.Errorf("tag image %s as %s: %w", id, name, err)
	}
	return nil
}

// RemoveImage removes an image, or one of its names. With prune those that nothing but it was built on go too. An image
// that is gone or that something uses is no error.
func (e *Engine) RemoveImage(ctx context.Context, id string, prune bool) error {
	_, err := e.api.ImageRemove(ctx, id, image.RemoveOptions{PruneChildren: prune})
	if err == nil || IsNotFound(err) || isConflict(err) {
		return nil
	}
	return fmt.Errorf("remove image %s: %w", id, err)
}
