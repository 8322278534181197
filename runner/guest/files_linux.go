package guest

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

const (
	// maxSetting bounds a file of settings that the sandbox adds to, in bytes.
	maxSetting = 256 << 10
	// fileMode lets everybody read and nobody write.
	fileMode = 0o444
)

// insideFiles are the sandbox's own files. They are made by root, so that the agent can't change them, and filled with
// the agent's rights, so that nothing is copied into them which the agent may not read.
type insideFiles map[string]*os.File

// createFiles makes every file that start asks for, empty. The directory is a file system of its own that nobody has
// had access to; a name that is taken is an error all the same.
func createFiles(dir string, start *link.Start) (insideFiles, error) {
	if err := start.CheckFiles(); err != nil {
		return nil, err
	}
	var names []string
	for _, f := range start.Files {
		if !f.Private {
			names = append(names, f.Name)
		}
	}
	if start.Trust != nil {
		names = append(names, link.CAFile, link.BundleFile, link.StoreFile)
	}
	if len(names) == 0 {
		return nil, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	files := insideFiles{}
	for _, name := range names {
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
		if err != nil {
			return nil, errors.Join(err, files.Close())
		}
		files[name] = f
		if err := f.Chmod(fileMode); err != nil { // whatever the umask
			return nil, errors.Join(err, files.Close())
		}
	}
	return files, nil
}

// fill writes all of them, and closes them.
func (files insideFiles) fill(start *link.Start, usual trustPlaces) (*link.Trusted, error) {
	defer files.Close()
	var missing []string
	for _, f := range start.Files {
		if f.Private {
			if err := writePrivate(f.Copy, f.Content); err != nil {
				return nil, err
			}
			continue
		}
		var before []byte
		if f.After != "" {
			var err error
			if before, err = readInside(f.After, maxSetting); err != nil && !errors.Is(err, os.ErrNotExist) {
				missing = append(missing, err.Error())
			}
		}
		content := append(before, f.Content...)
		if err := errors.Join(files.write(f.Name, content), copyFile(f.Copy, content)); err != nil {
			return nil, err
		}
	}
	if start.Trust == nil {
		return nil, nil
	}
	t, err := gatherTrust(start.Trust, usual)
	if err != nil {
		return nil, err
	}
	t.made.Missing = append(t.made.Missing, missing...)
	err = errors.Join(
		files.write(link.CAFile, t.own.pem()),
		files.write(link.BundleFile, t.bundle.pem()),
		files.write(link.StoreFile, keyStore(t.store.certs)),
	)
	return &t.made, err
}

func (files insideFiles) write(name string, content []byte) error {
	_, err := files[name].Write(content)
	return err
}

// copyFile gives the agent a file of its own, with its rights. One that the image or a mount has there is left alone.
func copyFile(name string, content []byte) error {
	if name == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// writePrivate writes a file that nobody but the agent can read, and that is new.
func writePrivate(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// Close closes those that are open.
func (files insideFiles) Close() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := files[name].Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// readInside reads an ordinary file of the image or the workspace. A name may be anything: a pipe would not end, and a
// file of /proc tells about the guest.
func readInside(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: name, Err: err}
	}
	if !st.Mode().IsRegular() || fs.Type == unix.PROC_SUPER_MAGIC || fs.Type == unix.SYSFS_MAGIC {
		return nil, fmt.Errorf("%s is no ordinary file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return b, nil
}
