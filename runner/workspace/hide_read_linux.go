package workspace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// dirReader reads directories with getdents64 alone. It is for one goroutine.
type dirReader struct {
	root *os.Root
	buf  []byte
}

// read calls visit with the name and the type of each entry of dir, in the directory's order.
func (d *dirReader) read(dir string, visit func(name string, typ fs.FileMode)) error {
	f, err := d.root.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if d.buf == nil {
		d.buf = make([]byte, 64<<10)
	}
	fd := int(f.Fd())
	for {
		n, err := unix.Getdents(fd, d.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return pathError("getdents", dir, err)
		}
		for b := d.buf[:n]; len(b) > 0; {
			var e dirent
			e, b = nextDirent(b)
			if e.name == "." || e.name == ".." {
				continue
			}
			typ, err := e.fileMode(fd)
			if errors.Is(err, unix.ENOENT) {
				continue // removed meanwhile
			}
			if err != nil {
				return pathError("stat", dir+"/"+e.name, err)
			}
			visit(e.name, typ)
		}
	}
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// dirent is a struct linux_dirent64: inode u64, offset u64, length u16, type u8, name with a NUL.
type dirent struct {
	name string
	typ  byte
}

func nextDirent(b []byte) (dirent, []byte) {
	length := binary.NativeEndian.Uint16(b[16:])
	name := b[19:length]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return dirent{name: string(name), typ: b[18]}, b[length:]
}

// fileMode asks the inode only where the filesystem has no types in its directories.
func (e dirent) fileMode(dir int) (fs.FileMode, error) {
	switch e.typ {
	case unix.DT_REG:
		return 0, nil
	case unix.DT_DIR:
		return fs.ModeDir, nil
	case unix.DT_LNK:
		return fs.ModeSymlink, nil
	case unix.DT_UNKNOWN:
		var st unix.Stat_t
		if err := unix.Fstatat(dir, e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return 0, err
		}
		return dirent{typ: byte(st.Mode >> 12)}.fileMode(dir) // S_IFMT >> 12 is DT_*
	}
	return fs.ModeIrregular, nil
}
