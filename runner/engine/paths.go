package engine

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
)

// Paths says where an engine has directories of this process, which runs in a container of that engine's. The zero value knows none.
type Paths struct{ known map[string]string }

// Of translates the path of a directory that was proven, or of something below it.
func (p Paths) Of(name string) (string, bool) {
	for dir, there := range p.known {
		if rest, ok := below(dir, name); ok {
			return there + rest, true
		}
	}
	return "", false
}

// below is what follows dir in name: empty or with a slash in front.
func below(dir, name string) (rest string, ok bool) {
	if dir == "/" {
		return name, true
	}
	rest, ok = strings.CutPrefix(name, dir)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// ApartError says why an engine can't be shown a directory of this process.
type ApartError struct{ Reason string }

func (e *ApartError) Error() string { return e.Reason }

func apart(format string, args ...any) error { return &ApartError{fmt.Sprintf(format, args...)} }

// locateTimeout bounds [Engine.Locate]. It takes a tenth of a second, on a machine that has the time.
const locateTimeout = time.Minute

// Locate finds out where the engine has directories of this process, and proves it: what this process writes to a directory
// must be there in a container that the engine gives that path. Who runs in no container of the engine's, or where the engine has
// other files under the same names (Docker in Docker, a remote engine), gets an *ApartError. The run's id is for the label.
func (e *Engine) Locate(ctx context.Context, run string, dirs ...string) (Paths, error) {
	ctx, cancel := context.WithTimeout(ctx, locateTimeout)
	defer cancel()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Paths{}, apart("this process can't tell what its own mounts are: %v", err)
	}
	own := parseMounts(string(text))
	hostname, _ := os.ReadFile("/etc/hostname") // without it there is the list of mounts
	self, err := e.self(ctx, containerIDs(string(hostname), own))
	if err != nil {
		return Paths{}, err
	}
	p := Paths{known: map[string]string{}}
	for _, dir := range dirs {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return Paths{}, err
		}
		if p.known[real], err = e.candidate(ctx, own, self.Mounts, real); err != nil {
			return Paths{}, err
		}
	}
	if err := e.prove(ctx, run, self.Image, p.known); err != nil {
		return Paths{}, err
	}
	return p, nil
}

// ownMount is a mount that this process sees (proc_pid_mountinfo(5)).
type ownMount struct {
	root  string // what of its file system is mounted
	point string
}

func parseMounts(mountinfo string) []ownMount {
	var all []ownMount
	for line := range strings.Lines(mountinfo) {
		const root, point = 3, 4
		if fields := strings.Fields(line); len(fields) > point {
			all = append(all, ownMount{unescapeMount(fields[root]), unescapeMount(fields[point])})
		}
	}
	return all
}

// unescapeMount undoes what the kernel does to spaces, tabs, newlines and backslashes.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// holding is the mount that a path is on: of the mounts around it the innermost, and of several at one place the last.
func holding(own []ownMount, path string) ownMount {
	var best ownMount
	for _, m := range own {
		if _, ok := below(m.point, path); ok && len(m.point) >= len(best.point) {
			best = m
		}
	}
	return best
}

var (
	shortID      = regexp.MustCompile(`^[0-9a-f]{12}$`)
	hostnameFile = regexp.MustCompile(`/containers/([0-9a-f]{64})/hostname$`)
	volumeData   = regexp.MustCompile(`/volumes/([^/]+)/_data(/.*)?$`)
)

// containerIDs are what this process' container may be called: an engine names the host after it, unless it was told otherwise, and has the
// file with that name in its directory. A container that joins another's network, as those of act do, has the other's: its mounts
// of the workspace are the same.
func containerIDs(hostname string, own []ownMount) []string {
	var ids []string
	if name := strings.TrimSpace(hostname); shortID.MatchString(name) {
		ids = append(ids, name)
	}
	for _, m := range own {
		if found := hostnameFile.FindStringSubmatch(m.root); found != nil && m.point == "/etc/hostname" {
			ids = append(ids, found[1])
		}
	}
	return ids
}

// self is the first of these containers that the engine knows.
func (e *Engine) self(ctx context.Context, ids []string) (container.InspectResponse, error) {
	for _, id := range ids {
		c, err := e.api.ContainerInspect(ctx, id)
		if IsNotFound(err) {
			continue
		}
		if err == nil && c.ContainerJSONBase == nil {
			err = errors.New("the engine says nothing about it")
		}
		if err != nil {
			return c, fmt.Errorf("inspect container %s, in which this is: %w", id, err)
		}
		return c, nil
	}
	return container.InspectResponse{}, apart("the engine is not on this host, and this is in no container of it")
}

// candidate is where the engine should have a directory: what the container's list of mounts says, else the volume that the kernel's names.
// The second is for a volume of a container that is not the one which was found.
func (e *Engine) candidate(ctx context.Context, own []ownMount, mounts []container.MountPoint, dir string) (string, error) {
	on := holding(own, dir)
	rest, _ := below(on.point, dir)
	if on.point == "/" {
		return "", apart("%s is in the container's own layer, which the engine shows to no other container", dir)
	}
	for _, m := range mounts {
		if filepath.Clean(m.Destination) == on.point && (m.Type == mount.TypeBind || m.Type == mount.TypeVolume) {
			return filepath.Clean(m.Source) + rest, nil
		}
	}
	found := volumeData.FindStringSubmatch(on.root)
	if found == nil {
		return "", apart("the engine does not say what is mounted at %s", on.point)
	}
	v, err := e.api.VolumeInspect(ctx, found[1])
	if IsNotFound(err) {
		return "", apart("the engine knows no volume %s, which is mounted at %s", found[1], on.point)
	}
	if err != nil {
		return "", fmt.Errorf("inspect volume %s: %w", found[1], err)
	}
	return v.Mountpoint + found[2] + rest, nil
}

// prove writes a file that nobody could have made before into each directory, and reads it back through a container to which the engine gives
// what it has under the translated paths. The container never starts. known has this process' directories, and the engine's.
func (e *Engine) prove(ctx context.Context, run, image string, known map[string]string) (err error) {
	var mounts []mount.Mount
	proofs := map[string]proof{} // by where the directory is in the container
	defer func() {
		for _, p := range proofs {
			err = errors.Join(err, os.Remove(p.file))
		}
	}()
	for dir, there := range known {
		p, err := newProof(dir)
		if err != nil {
			return err
		}
		target := fmt.Sprintf("/proof/%d", len(mounts))
		proofs[target] = p
		mounts = append(mounts, mount.Mount{Type: mount.TypeBind, Source: there, Target: target, ReadOnly: true})
	}
	c, err := e.scratch(ctx, run, Image{ID: image}, "", mounts)
	if errdefs.IsInvalidArgument(err) {
		return apart("the engine has another file system than this container: %v", err)
	}
	if err != nil {
		return fmt.Errorf("prove where the engine has this container's directories: %w", err)
	}
	defer func() { err = errors.Join(err, c.Remove(context.WithoutCancel(ctx))) }()
	for target, p := range proofs {
		if err := p.check(ctx, c, target); err != nil {
			return err
		}
	}
	return nil
}

// proof is a file with a secret in it.
type proof struct {
	file   string
	secret string
}

func newProof(dir string) (proof, error) {
	p := proof{file: filepath.Join(dir, ".agent-sandbox-proof-"+rand.Text()), secret: rand.Text()}
	f, err := os.OpenFile(p.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return p, apart("nothing can be proven about a directory that can't be written to: %v", err)
	}
	_, err = f.WriteString(p.secret)
	if err = errors.Join(err, f.Close()); err != nil {
		return p, errors.Join(err, os.Remove(p.file))
	}
	return p, nil
}

// check reads the file back from the container.
func (p proof) check(ctx context.Context, c *Container, target string) error {
	archive, err := c.CopyOut(ctx, target+"/"+filepath.Base(p.file))
	if IsNotFound(err) {
		return apart("the engine has another file system than this container: what is written to %s is not there", filepath.Dir(p.file))
	}
	if err != nil {
		return err
	}
	defer archive.Close()
	files := tar.NewReader(archive)
	if _, err := files.Next(); err != nil {
		return fmt.Errorf("prove where the engine has this container's directories: %w", err)
	}
	got, err := io.ReadAll(io.LimitReader(files, int64(len(p.secret))+1))
	if err != nil {
		return fmt.Errorf("prove where the engine has this container's directories: %w", err)
	}
	if string(got) != p.secret {
		return apart("the engine has another file system than this container: %s has another file there", filepath.Dir(p.file))
	}
	return nil
}
