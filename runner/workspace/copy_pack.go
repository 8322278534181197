package workspace

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/policy"
)

// prepareCopy needs nothing of the engine: the project comes and goes as an archive, through a volume that
// ends with the container.
func (v *View) prepareCopy() error {
	v.Mounts = []Mount{{Type: MountVolume, NoCopy: true}}
	return nil
}

// Pack writes the project as a tar archive to be unpacked at the workspace's place in the container, before its start. Everything
// in it belongs to the agent. What is hidden is left out; so are sockets, FIFOs, devices, what the runner can't read and
// what is mounted inside the project, each kind with a sentence in Lowered. Hard links are kept, extended attributes not. What was
// packed is remembered: Extract compares with it. Docker leaves the directory that it unpacks into as it is, root's: giving it to
// the agent is the guest's.
func (v *View) Pack(ctx context.Context, w io.Writer) error {
	if v.Mode != policy.ModeCopy {
		return fmt.Errorf("pack workspace: mode is %s", v.Mode)
	}
	root, err := os.OpenRoot(v.cfg.Project)
	if err != nil {
		return fmt.Errorf("pack workspace: %w", err)
	}
	defer root.Close()
	p := &packer{view: v, root: root, tar: tar.NewWriter(w), buf: make([]byte, 128<<10), found: make(index), links: make(map[inode]string)}
	if err := errors.Join(p.all(ctx), p.tar.Close()); err != nil {
		return fmt.Errorf("pack workspace: %w", err)
	}
	slices.Sort(p.hidden)
	v.index, v.hidden = p.found, p.hidden
	p.report()
	return nil
}

type inode struct{ dev, ino uint64 }

type packer struct {
	view   *View
	root   *os.Root
	dev    uint64 // of the project
	tar    *tar.Writer
	buf    []byte
	found  index
	hidden []string
	links  map[inode]string // files with several names, by the first of them

	special, closed, mounted []string // what is left out
}

func (p *packer) all(ctx context.Context) error {
	info, err := p.root.Lstat(".")
	if err != nil {
		return err
	}
	p.dev = statOf(info).dev
	if err := p.tar.WriteHeader(p.header("./", info)); err != nil {
		return err
	}
	return p.dir(ctx, ".")
}

// dir packs in the order of the names, so that the archive does not depend on the disk.
func (p *packer) dir(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	infos, err := readDir(p.root, dir)
	if errors.Is(err, fs.ErrPermission) {
		p.closed = append(p.closed, dir)
		return nil
	}
	if err != nil {
		return ignore(err, fs.ErrNotExist)
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return strings.Compare(a.Name(), b.Name()) })
	for _, info := range infos {
		if err := p.entry(ctx, join(dir, info.Name()), info); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) entry(ctx context.Context, path string, info fs.FileInfo) error {
	switch typ := info.Mode().Type(); {
	case p.view.cfg.Hide.Match(path, info.IsDir()):
		p.hidden = append(p.hidden, path)
		return nil
	case typ == 0:
		return p.file(ctx, path)
	case typ == fs.ModeSymlink:
		return p.symlink(path, info)
	case typ != fs.ModeDir:
		p.special = append(p.special, path)
		return nil
	}
	p.found[path] = &indexed{Node: *nodeOf(info)}
	if err := p.tar.WriteHeader(p.header(path+"/", info)); err != nil {
		return err
	}
	if statOf(info).dev != p.dev {
		p.mounted = append(p.mounted, path)
		return nil
	}
	return p.dir(ctx, path)
}

// header is in the PAX format, which has whole names and nanoseconds: build tools compare times.
func (p *packer) header(name string, info fs.FileInfo) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(unixMode(info.Mode() & modeBits)), ModTime: info.ModTime(),
		Uid: p.view.cfg.UID, Gid: p.view.cfg.GID, Format: tar.FormatPAX,
	}
	if info.IsDir() {
		h.Typeflag = tar.TypeDir
	}
	return h
}

func (p *packer) symlink(path string, info fs.FileInfo) error {
	n := nodeOf(info)
	if err := n.readLink(p.root, path); err != nil {
		return ignore(err, fs.ErrNotExist)
	}
	h := p.header(path, info)
	h.Typeflag, h.Linkname = tar.TypeSymlink, n.Target
	p.found[path] = &indexed{Node: *n}
	return p.tar.WriteHeader(h)
}

func (p *packer) file(ctx context.Context, path string) error {
	f, err := openRegular(p.root, path)
	if errors.Is(err, fs.ErrPermission) {
		p.closed = append(p.closed, path)
		return nil
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotRegular) {
			return nil // gone, or replaced, since its directory was read
		}
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st := statOf(info)
	if first := p.links[inode{st.dev, st.ino}]; st.nlink > 1 && first != "" {
		return p.link(path, first, info)
	}
	if st.nlink > 1 {
		p.links[inode{st.dev, st.ino}] = path
	}
	return p.content(ctx, path, f, info)
}

func (p *packer) link(path, first string, info fs.FileInfo) error {
	h := p.header(path, info)
	h.Typeflag, h.Linkname = tar.TypeLink, first
	p.found[path] = &indexed{Node: p.found[first].Node}
	return p.tar.WriteHeader(h)
}

// content writes as many bytes as the header says, whatever becomes of the file meanwhile: what is missing is
// zeros. The digest is of what was written, so a file that changed is seen as such at the end.
func (p *packer) content(ctx context.Context, path string, f io.Reader, info fs.FileInfo) error {
	h := p.header(path, info)
	h.Size = info.Size()
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	sum := sha256.New()
	padded := io.LimitReader(io.MultiReader(contextReader{ctx, f}, zeros{}), h.Size)
	if _, err := io.CopyBuffer(onlyWriter{io.MultiWriter(p.tar, sum)}, padded, p.buf); err != nil {
		return err
	}
	n := nodeOf(info)
	n.SHA256 = hex.EncodeToString(sum.Sum(nil))
	p.found[path] = &indexed{Node: *n}
	return nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (p *packer) report() {
	for _, left := range []struct {
		paths []string
		why   string
	}{
		{p.special, "are neither files, directories nor symlinks"},
		{p.closed, "can't be read by the runner's user"},
		{p.mounted, "are mounted inside the project"},
	} {
		if n := len(left.paths); n > 0 {
			p.view.lower("%d paths are not in the copy because they %s: %s", n, left.why, someOf(left.paths))
		}
	}
}

// someOf names a few paths, quoted.
func someOf(paths []string) string {
	const most = 5
	quoted := make([]string, 0, most)
	for _, p := range paths[:min(len(paths), most)] {
		quoted = append(quoted, fmt.Sprintf("%q", p))
	}
	if len(paths) > most {
		quoted = append(quoted, "...")
	}
	return strings.Join(quoted, ", ")
}
