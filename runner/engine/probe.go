package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
)

// Probe asks an image about itself: a command of the image's own, in a container that has nothing. It sees no file but
// the image's, can't write, has no network, no capability and no mount, and is gone afterwards.
type Probe struct {
	Run   string   // for the label
	Image string   // the image's id
	Argv  []string // the program and its arguments, in the image
	Env   []string // NAME=value, beside the image's own. The engine shows it to whoever may ask: no secrets.
}

// Bounds of a probe. A package manager that starts an interpreter takes a second and 100 MiB.
const (
	probeTimeout = 20 * time.Second
	probeOutput  = 1 << 20 // bytes
	probeMemory  = 512 << 20
	probePIDs    = 64
	probeUser    = "65534:65534" // nobody
)

// ErrNoProgram tells that an image does not have the program that a probe names.
var ErrNoProgram = errors.New("the image has no such program")

// Probe runs p and returns what it wrote to its standard output. What it writes beyond the bound is an error, as is time
// that runs out; its exit status is not looked at. The error wraps ErrNoProgram if the program is not in the image.
func (e *Engine) Probe(ctx context.Context, p Probe) (out []byte, err error) {
	c, err := e.createProbe(ctx, p)
	if err != nil {
		return nil, err
	}
	gone := false
	defer func() {
		if !gone {
			err = errors.Join(err, removeProbe(ctx, c))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := c.Attach(ctx, io.Discard)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // a read of the stream knows no context
	defer stop()
	removed := c.Removed(ctx)
	if err := c.Start(ctx); err != nil {
		return nil, probeError(err)
	}
	out, err = readProbe(conn)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("ask the image: %w", context.Cause(ctx))
	}
	if err != nil {
		return nil, err
	}
	gone = <-removed == nil
	return out, nil
}

func readProbe(r io.Reader) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(r, probeOutput+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask the image: %w", err)
	case len(out) > probeOutput:
		return nil, fmt.Errorf("ask the image: it answers with more than %d bytes", probeOutput)
	}
	return out, nil
}

func (e *Engine) createProbe(ctx context.Context, p Probe) (*Container, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := unstoppable(ctx)
	defer cancel()
	cfg, host := p.config()
	resp, err := e.api.ContainerCreate(ctx, cfg, host, &network.NetworkingConfig{}, nil, "")
	if err != nil {
		return nil, fmt.Errorf("create probe: %w", err)
	}
	return &Container{engine: e, ID: resp.ID}, nil
}

func (p Probe) config() (*container.Config, *container.HostConfig) {
	pids := int64(probePIDs)
	return &container.Config{
		Image: p.Image, User: probeUser, Entrypoint: p.Argv, Cmd: []string{}, Env: p.Env, WorkingDir: "/", Hostname: "probe",
		Labels: map[string]string{Label: p.Run}, AttachStdout: true, AttachStderr: true,
		NetworkDisabled: true, // as with Spec: the network is as empty, and the engine has no part in it
		Healthcheck:     &container.HealthConfig{Test: []string{"NONE"}},
	}, &container.HostConfig{
		AutoRemove: true, NetworkMode: "none", ReadonlyRootfs: true, LogConfig: container.LogConfig{Type: "none"},
		CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges"}, IpcMode: "private", CgroupnsMode: "private",
		Resources: container.Resources{
			Memory: probeMemory, MemorySwap: probeMemory, PidsLimit: &pids,
			Ulimits: []*container.Ulimit{{Name: "core", Soft: 0, Hard: 0}},
		},
	}
}

// probeError tells a program that is not there from other failures: the engine says so with the status of a wrong
// parameter, which nothing else here can cause.
func probeError(err error) error {
	if errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) {
		return fmt.Errorf("%w: %w", ErrNoProgram, err)
	}
	return err
}

func removeProbe(ctx context.Context, c *Container) error {
	ctx, cancel := unstoppable(ctx)
	defer cancel()
	return c.Remove(ctx)
}
