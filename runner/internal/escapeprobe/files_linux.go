package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxRead bounds what is reported of a file or of a program's output.
const maxRead = 256 << 10

func fileOps() map[string]operation {
	one := func(do func(string) error) operation {
		return operation{1, func(a []string) (string, error) { return "", do(a[0]) }}
	}
	two := func(do func(_, _ string) error) operation {
		return operation{2, func(a []string) (string, error) { return "", do(a[0], a[1]) }}
	}
	return map[string]operation{
		"open":     two(open),
		"read":     {1, func(a []string) (string, error) { return read(a[0]) }},
		"readlink": {1, func(a []string) (string, error) { return os.Readlink(a[0]) }},
		"stat":     {1, func(a []string) (string, error) { return stat(a[0]) }},
		"list":     {1, func(a []string) (string, error) { return list(a[0]) }},
		"write":    two(func(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }),
		"append":   two(appendTo),
		"writehex": two(writeHex),
		"mkdir":    one(func(path string) error { return os.MkdirAll(path, 0o755) }),
		"remove":   one(os.RemoveAll),
		"rename":   two(os.Rename),
		"symlink":  two(os.Symlink),
		"link":     two(os.Link),
		"mkfifo":   one(func(path string) error { return unix.Mkfifo(path, 0o644) }),
		"chmod":    two(chmod),
		"touch":    one(func(path string) error { return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)) }),
		"mknod":    {4, func(a []string) (string, error) { return "", mknod(a) }},
		"exec":     {1, func(a []string) (string, error) { return execute(a) }},
		"mount":    {3, func(a []string) (string, error) { return "", unix.Mount(a[0], a[1], a[2], 0, "") }},
		"bind":     two(func(from, to string) error { return unix.Mount(from, to, "", unix.MS_BIND, "") }),
		"remount":  one(func(path string) error { return unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND, "") }),
		"umount":   one(func(path string) error { return unix.Unmount(path, unix.MNT_DETACH) }),
		"chroot":   one(unix.Chroot),
	}
}

// open opens for reading ("r"), writing ("w") or both ("rw"), and closes again.
func open(path, how string) error {
	flag := map[string]int{"r": unix.O_RDONLY, "w": unix.O_WRONLY, "rw": unix.O_RDWR}[how]
	fd, err := unix.Open(path, flag|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRead))
	return string(b), err
}

func stat(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("mode %o uid %d gid %d size %d links %d", st.Mode, st.Uid, st.Gid, st.Size, st.Nlink), nil
}

func list(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " "), err
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// writeHex is for a path that JSON can't hold.
func writeHex(path, text string) error {
	raw, err := hex.DecodeString(path)
	if err != nil {
		return err
	}
	return os.WriteFile(string(raw), []byte(text), 0o644)
}

func chmod(path, octal string) error {
	mode, err := strconv.ParseUint(octal, 8, 32)
	if err != nil {
		return err
	}
	return unix.Chmod(path, uint32(mode))
}

// mknod takes a path, "c" or "b", major and minor.
func mknod(a []string) error {
	mode := map[string]uint32{"c": unix.S_IFCHR, "b": unix.S_IFBLK}[a[1]]
	major, err := strconv.ParseUint(a[2], 10, 32)
	if err != nil {
		return err
	}
	minor, err := strconv.ParseUint(a[3], 10, 32)
	if err != nil {
		return err
	}
	if err := unix.Mknod(a[0], mode|0o666, int(unix.Mkdev(uint32(major), uint32(minor)))); err != nil {
		return err
	}
	defer os.Remove(a[0])
	// The device behind it, which the control group of devices guards.
	if err := open(a[0], "r"); err != nil {
		return fmt.Errorf("made it, then %w", err)
	}
	return nil
}

func execute(a []string) (string, error) {
	out, err := exec.Command(a[0], a[1:]...).CombinedOutput()
	return string(out[:min(len(out), maxRead)]), err
}
