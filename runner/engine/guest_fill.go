package engine

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
)

// filled is the name of the file that tells that a guest's volume has everything.
const filled = "complete"

const (
	// fillTimeout is how long somebody else may take to fill a volume. Who takes longer has died.
	fillTimeout = 30 * time.Second
	// fillAttempts bounds how often a filler that was taken for dead begins again.
	fillAttempts = 5
)

// filling writes the guest's files to a named volume, through a container that never starts: it works with every image
// and engine. Whoever has the container's name, which is the volume's, fills: a program that is being written can't be started.
type filling struct {
	engine   *Engine
	run      string
	image    Image
	volume   string
	patience time.Duration // with another filler
}

// fill writes files, unless the volume has them, and returns its directory on the engine's host.
func (f filling) fill(ctx context.Context, files []file) (dir string, err error) {
	labels := map[string]string{Label: f.run}
	vol, err := f.engine.api.VolumeCreate(ctx, volume.CreateOptions{Name: f.volume, Labels: labels})
	if err != nil {
		return "", err
	}
	for range fillAttempts {
		var c *Container
		if c, err = f.claim(ctx); err != nil {
			return "", err
		}
		if err = write(ctx, c, files); err == nil {
			return vol.Mountpoint, c.Remove(context.WithoutCancel(ctx))
		}
		if there, asked := f.engine.exists(ctx, c); there || asked != nil {
			return "", errors.Join(err, asked, c.Remove(context.WithoutCancel(ctx)))
		}
		// Somebody lost patience, and fills now.
	}
	return "", err
}

// write copies files to the volume in c, unless it has them.
func write(ctx context.Context, c *Container, files []file) error {
	if _, err := c.engine.api.ContainerStatPath(ctx, c.ID, GuestMount+"/"+filled); err == nil {
		return nil
	}
	archive, w := io.Pipe()
	defer archive.Close() // ends pack, if the engine did not read it all
	go func() { w.CloseWithError(pack(w, files)) }()
	return c.CopyIn(ctx, GuestMount, archive)
}

// claim creates the container that fills, when nobody else does.
func (f filling) claim(ctx context.Context) (*Container, error) {
	mounts := []mount.Mount{{
		Type: mount.TypeVolume, Source: f.volume, Target: GuestMount, VolumeOptions: &mount.VolumeOptions{NoCopy: true},
	}}
	for {
		c, err := f.engine.scratch(ctx, f.run, f.image, f.volume, mounts)
		if !errdefs.IsConflict(err) {
			return c, err
		}
		if err := f.await(ctx); err != nil {
			return nil, err
		}
	}
}

// await returns when the container that has the name now is gone; it removes one that stays for too long. It goes by the
// container's id: when several lose patience at once, the name is soon that of the first of them.
func (f filling) await(ctx context.Context) error {
	found, err := f.engine.api.ContainerInspect(ctx, f.volume)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	holder := &Container{engine: f.engine, ID: found.ID}
	waiting, cancel := context.WithTimeout(ctx, f.patience)
	defer cancel()
	if err := holder.gone(waiting); err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	return holder.Remove(ctx)
}

// scratch creates a container that is only there for its files; with a name or without.
func (e *Engine) scratch(ctx context.Context, run string, img Image, name string, mounts []mount.Mount) (*Container, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := unstoppable(ctx)
	defer cancel()
	resp, err := e.api.ContainerCreate(ctx,
		&container.Config{Image: img.ID, Entrypoint: []string{"/never-started"}, Labels: map[string]string{Label: run}},
		&container.HostConfig{NetworkMode: "none", Mounts: mounts, AutoRemove: true},
		&network.NetworkingConfig{}, nil, name)
	if err != nil {
		return nil, err
	}
	return &Container{engine: e, ID: resp.ID}, nil
}

type file struct {
	name string
	mode int64
	data []byte
}

// pack writes files as a tar archive.
func pack(to io.Writer, files []file) error {
	w := tar.NewWriter(to)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := w.Write(f.data); err != nil {
			return err
		}
	}
	return w.Close()
}
