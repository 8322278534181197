package workspace

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// unreachable knows the errors of a path that is gone from the host, or that the runner's user may not see. The agent
// has the same uid then, so it saw nothing there either.
func unreachable(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrPermission)
}

// host looks at paths of the project without going through symlinks, not even those that stay in the project:
// "link/x" is no path of a tree. It is for one goroutine.
type host struct {
	root *os.Root
	dirs map[string]bool // what is known to be a directory, or not to be one
}

func newHost(root *os.Root) *host {
	return &host{root: root, dirs: map[string]bool{".": true}}
}

// info is what the project has at p, nil for nothing.
func (h *host) info(p string) (fs.FileInfo, error) {
	if !h.isDir(path.Dir(p)) {
		return nil, nil
	}
	info, err := h.root.Lstat(p)
	if unreachable(err) {
		return nil, nil
	}
	return info, err
}

func (h *host) isDir(p string) bool {
	is, known := h.dirs[p]
	if !known {
		info, err := h.info(p)
		is = err == nil && info != nil && info.IsDir()
		h.dirs[p] = is
	}
	return is
}
