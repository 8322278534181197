package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func bombOps() map[string]operation {
	return map[string]operation{
		"forks":    {1, func(a []string) (string, error) { return forks(a[0]) }},
		"memory":   {1, func(a []string) (string, error) { return memory(a[0]) }},
		"fill":     {2, func(a []string) (string, error) { return fill(a[0], a[1]) }},
		"allocate": {3, func(a []string) (string, error) { return allocate(a[0], a[1], a[2]) }},
		"files":    {2, func(a []string) (string, error) { return manyFiles(a[0], a[1]) }},
		"ask":      {1, func(a []string) (string, error) { return ask(a[0]) }},
		"hide":     {3, func(a []string) (string, error) { return hide(a[0], a[1], a[2]) }},
		"print":    {1, func(a []string) (string, error) { return "", printMiB(a[0]) }},
	}
}

// forks starts up to n processes that do nothing, and ends them after a second.
func forks(n string) (string, error) {
	want, err := strconv.Atoi(n)
	if err != nil {
		return "", err
	}
	var pids []int
	defer func() {
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
	}()
	for len(pids) < want {
		// By clone alone: what a Go program takes to start a process would need threads of its own.
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			dialRaw()
			time.Sleep(time.Second)
			return strconv.Itoa(len(pids)), errno
		}
		if pid == 0 { // a copy of one thread of a Go program can do nothing but sleep
			for {
				_, _, _ = syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
			}
		}
		pids = append(pids, int(pid))
	}
	return strconv.Itoa(len(pids)), nil
}

// dialRaw dials 8.8.4.4:8080 without anything for which Go would need another thread. Whether the dial is seen tells
// whether the guest still works when there is room for no process more.
func dialRaw() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		_ = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{8, 8, 4, 4}, Port: 8080})
	}
}

// memory takes so many MiB and writes to each page.
func memory(mib string) (string, error) {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return "", err
	}
	for taken := range n {
		b, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return fmt.Sprint(taken, " MiB"), err
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
	}
	return mib + " MiB", nil
}

// fill writes up to so many MiB to a new file, and removes it unless there is a third argument.
func fill(path, mib string) (string, error) {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return "", err
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer os.Remove(path)
	defer f.Close()
	b := make([]byte, 1<<20)
	for i := range n {
		if _, err := f.Write(b); err != nil {
			return fmt.Sprint(i, " MiB"), err
		}
	}
	return mib + " MiB", nil
}

// allocate has the file system reserve space without writing to it, and keeps it for a while, such as "2s".
func allocate(path, mib, keep string) (string, error) {
	pause, err := time.ParseDuration(keep)
	if err != nil {
		return "", err
	}
	n, err := strconv.ParseInt(mib, 10, 64)
	if err != nil {
		return "", err
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, n<<20)
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = fill(path, mib)
	}
	if err == nil {
		time.Sleep(pause)
	}
	return mib + " MiB", err
}

// manyFiles makes so many empty files in a new directory.
func manyFiles(dir, count string) (string, error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for i := range n {
		f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			return strconv.Itoa(i), err
		}
		_ = f.Close()
	}
	return count, nil
}

// ask asks for so many different names.
func ask(count string) (string, error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return "", err
	}
	for i := range n {
		if _, err := askDNS("udp", "192.0.2.53:53", fmt.Sprintf("n%d.flood.example", i)); !errors.Is(err, syscall.ENOENT) {
			return strconv.Itoa(i), err
		}
	}
	return count, nil
}

// hide sends so many datagrams to one address, and then one to another. It reports how many the kernel took up: the
// error of one can be the answer to the next.
func hide(count, among, hidden string) (string, error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return "", err
	}
	conn, err := net.Dial("udp", among)
	if err != nil {
		return "", err
	}
	taken := 1
	for range n {
		if _, err := conn.Write([]byte("x")); errors.Is(err, unix.EPERM) {
			taken++
		}
	}
	last, err := net.Dial("udp", hidden)
	if err != nil {
		return "", err
	}
	_, _ = last.Write([]byte("x"))
	return strconv.Itoa(taken), nil
}

// lastMoment sends a datagram, asks for a name and dials, and dies before any answer.
func lastMoment() {
	for _, to := range []unix.SockaddrInet4{{Addr: [4]byte{8, 8, 4, 4}, Port: 443}, {Addr: [4]byte{192, 0, 2, 53}, Port: 53}} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			question := append([]byte{0x13, 0x37, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, labels("last.moment.example")...)
			_ = unix.Sendto(fd, append(question, 0, 1, 0, 1), 0, &to)
		}
	}
	dialRaw()
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
}

// printMiB floods standard error, since answers go to standard output.
func printMiB(mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	line := make([]byte, 1<<20)
	for i := range line {
		line[i] = 'x'
	}
	for range n {
		if _, err := os.Stderr.Write(line); err != nil {
			return err
		}
	}
	return nil
}
