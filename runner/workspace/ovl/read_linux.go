package ovl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// The attribute names. With CAP_SYS_ADMIN only the trusted ones are written, and nobody without it can set them.
const (
	attrOpaque   = "trusted.overlay.opaque"
	attrRedirect = "trusted.overlay.redirect"
	attrWhiteout = "trusted.overlay.whiteout"
)

// Read gives the attributes of the directories below root, and of root itself as ".". Directories without any
// are left out. It needs CAP_SYS_ADMIN in the first user namespace: without it the kernel says that there
// are no such attributes, and that is not an error that Read could notice. Ask CanRead first.
func Read(root string) (map[string]Attrs, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	w := walk{dirs: make(map[string]Attrs)}
	if err := w.dir(os.NewFile(uintptr(fd), root), ".", 0); err != nil {
		return nil, fmt.Errorf("read overlay attributes: %w", err)
	}
	return w.dirs, nil
}

// CanRead reports whether this process sees trusted attributes, by setting one on a file of the same
// filesystem as root and reading it back: user namespaces and security modules make every other answer a guess.
func CanRead(root string) bool {
	fd, err := unix.Open(root, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var b [1]byte
	if err := unix.Fsetxattr(fd, "trusted.agent-sandbox", []byte("y"), 0); err != nil {
		return false
	}
	n, err := unix.Fgetxattr(fd, "trusted.agent-sandbox", b[:])
	return err == nil && n == 1
}

type walk struct{ dirs map[string]Attrs }

// dir takes over f.
func (w *walk) dir(f *os.File, path string, depth int) error {
	defer f.Close()
	if depth > MaxDepth || len(path) > maxPath {
		return fmt.Errorf("%.80q...: too deep", path)
	}
	a, whiteouts, err := dirAttrs(int(f.Fd()))
	if err != nil {
		return &os.PathError{Op: "getxattr", Path: path, Err: err}
	}
	for {
		entries, err := f.ReadDir(1024)
		for _, e := range entries {
			if err := w.entry(f, path, depth, e, whiteouts, &a); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	slices.Sort(a.Whiteouts)
	return w.add(path, a)
}

func (w *walk) add(path string, a Attrs) error {
	if a.empty() {
		return nil
	}
	if len(w.dirs) == MaxDirs {
		return fmt.Errorf("more than %d directories", MaxDirs)
	}
	if err := check(path, a); err != nil {
		return err
	}
	w.dirs[path] = a
	return nil
}

func (w *walk) entry(f *os.File, path string, depth int, e os.DirEntry, whiteouts bool, a *Attrs) error {
	if e.IsDir() {
		fd, err := unix.Openat(int(f.Fd()), e.Name(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: join(path, e.Name()), Err: err}
		}
		return w.dir(os.NewFile(uintptr(fd), e.Name()), join(path, e.Name()), depth+1)
	}
	if whiteouts && e.Type().IsRegular() {
		is, err := isXattrWhiteout(int(f.Fd()), e.Name())
		if err != nil {
			return &os.PathError{Op: "getxattr", Path: join(path, e.Name()), Err: err}
		}
		if is {
			a.Whiteouts = append(a.Whiteouts, e.Name())
		}
	}
	return nil
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// dirAttrs also says whether the directory may hold whiteouts that are regular files: opaque is "x" then.
func dirAttrs(fd int) (a Attrs, whiteouts bool, err error) {
	opaque, err := xattr(fd, attrOpaque)
	if err != nil {
		return a, false, err
	}
	a.Redirect, err = xattr(fd, attrRedirect)
	a.Opaque = opaque == "y"
	return a, opaque == "x", err
}

// isXattrWhiteout opens the file to ask: it is regular, and nobody writes to an upper directory any more.
func isXattrWhiteout(dir int, name string) (bool, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	_, err = unix.Fgetxattr(fd, attrWhiteout, nil)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	return err == nil, err
}

func xattr(fd int, name string) (string, error) {
	b := make([]byte, maxPath)
	n, err := unix.Fgetxattr(fd, name, b)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}
