package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// terminals tries the terminal requests that the profile denies, on a pseudo-terminal made here.
func terminals() []attempt {
	const (
		tioclinux = 0x541c
		tiocsetd  = 0x5423
		highBits  = 0xdead << 32 // the kernel ignores them, so a filter that compares 64 bits is got round by them
	)
	var all []attempt
	for _, t := range []struct {
		name    string
		request uint64
		strict  string
	}{
		{"TIOCSTI", unix.TIOCSTI, "EPERM"},
		{"TIOCSTI, high bits set", highBits | unix.TIOCSTI, "EPERM"},
		{"TIOCLINUX", tioclinux, "EPERM"},
		{"TIOCLINUX, high bits set", highBits | tioclinux, "EPERM"},
		{"TIOCSETD", tiocsetd, "EPERM"},
		{"TIOCSETD, high bits set", highBits | tiocsetd, "EPERM"},
		{"TCGETS", unix.TCGETS, "ok"},
		{"TIOCGWINSZ", unix.TIOCGWINSZ, "ok"},
		{"TIOCGWINSZ, high bits set", highBits | unix.TIOCGWINSZ, "ok"},
		{"TIOCINQ", unix.TIOCINQ, "ok"},
	} {
		all = append(all, attempt{"ioctl " + t.name, []string{t.strict}, func() (string, error) { return "", onTerminal(t.request) }})
	}
	return all
}

func onTerminal(request uint64) error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	var arg [64]byte // zero: the character NUL, the line discipline N_TTY, or room for the answer
	fd, err := unix.IoctlRetInt(int(master.Fd()), unix.TIOCGPTPEER)
	if err != nil {
		return err
	}
	return ioctl(uintptr(fd), request, &arg)
}

// nodes tries to make device nodes in the working directory or /tmp. The 0/0 character device needs
// no capability on a tmpfs, and overlayfs reads it as "deleted".
func nodes() []attempt {
	var all []attempt
	for _, n := range []struct {
		name   string
		mode   uint32
		strict string
	}{
		{"character device 0/0", unix.S_IFCHR, "EPERM"},
		{"block device 0/0", unix.S_IFBLK, "EPERM"},
		{"fifo", unix.S_IFIFO, "ok"},
		{"socket", unix.S_IFSOCK, "ok"},
		{"regular file", unix.S_IFREG, "ok"},
		{"file without a type", 0, "ok"},
	} {
		all = append(all, attempt{"mknodat " + n.name, []string{n.strict}, func() (string, error) {
			dir, err := os.MkdirTemp("", "sysprobe")
			if err != nil {
				return "", err
			}
			defer os.RemoveAll(dir)
			return "", unix.Mknodat(unix.AT_FDCWD, filepath.Join(dir, "node"), n.mode|0o600, 0)
		}})
	}
	return all
}
