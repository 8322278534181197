package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// whiteOut puts whiteouts for the paths into upper/, where the overlay is not mounted yet: it takes each for a file that
// was deleted. The directories above are made like the lower ones, with which they merge.
func (v *View) whiteOut(hidden []string) error {
	project, err := os.OpenRoot(v.cfg.Project)
	if err != nil {
		return err
	}
	defer project.Close()
	parents := make(map[string]fs.FileInfo)
	for _, p := range hidden {
		if err := v.makeParents(project, path.Dir(p), parents); err != nil {
			return fmt.Errorf("hide %q: %w", p, err)
		}
		// Rights to make devices are not needed for this one since Linux 5.8.
		if err := unix.Mknod(filepath.Join(v.upper(), p), unix.S_IFCHR, 0); err != nil {
			return fmt.Errorf("hide %q: %w", p, &os.PathError{Op: "mknod", Path: "whiteout", Err: err})
		}
	}
	return v.finishParents(parents)
}

// makeParents makes dir and what is above it in upper/, open to us for the whiteouts that are still to come.
func (v *View) makeParents(project *os.Root, dir string, made map[string]fs.FileInfo) error {
	if made[dir] != nil {
		return nil
	}
	info, err := project.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return errors.New("a directory above it changed meanwhile; start again")
	}
	if dir != "." {
		if err := v.makeParents(project, path.Dir(dir), made); err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Join(v.upper(), dir), 0o700); err != nil {
			return err
		}
	} else if err := os.Chmod(v.upper(), 0o700); err != nil {
		return err
	}
	made[dir] = info
	return nil
}

// finishParents gives the directories the mode, owner and times that the agent would see without us, the deepest
// first: a directory's mode may keep us from what is in it, and what is made in it changes its times.
func (v *View) finishParents(made map[string]fs.FileInfo) error {
	dirs := make([]string, 0, len(made))
	for dir := range made {
		dirs = append(dirs, dir)
	}
	slices.SortFunc(dirs, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	if i := slices.Index(dirs, "."); i >= 0 {
		dirs = append(slices.Delete(dirs, i, i+1), ".")
	}
	for _, dir := range dirs {
		if err := v.likeLower(filepath.Join(v.upper(), dir), made[dir]); err != nil {
			return fmt.Errorf("hide what is in %q: %w", dir, err)
		}
	}
	return nil
}
