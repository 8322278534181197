package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func selfOps() map[string]operation {
	return map[string]operation{
		"nothing":    {0, func([]string) (string, error) { return "", nil }},
		"ids":        {0, func([]string) (string, error) { return ids() }},
		"status":     {1, func(a []string) (string, error) { return status(a[0]) }},
		"fds":        {0, func([]string) (string, error) { return inherited() }},
		"umask":      {0, func([]string) (string, error) { return fmt.Sprintf("%04o", unix.Umask(0)), nil }},
		"terminal":   {0, func([]string) (string, error) { return "", open("/dev/tty", "rw") }},
		"environ":    {0, func([]string) (string, error) { return strings.Join(os.Environ(), "\n"), nil }},
		"crash":      {1, func(a []string) (string, error) { return crash(a[0]) }},
		"traceself":  {0, func([]string) (string, error) { return "", traceChild() }},
		"fstype":     {1, func(a []string) (string, error) { return fileSystem(a[0]) }},
		"findsuid":   {0, func([]string) (string, error) { return findSetuid() }},
		"killchild":  {0, func([]string) (string, error) { return "", killChild() }},
		"vmreadself": {0, func([]string) (string, error) { return "", readMemory(os.Getpid()) }},
	}
}

// inherited are the descriptors that the parent got: it is the process that the guest started.
func inherited() (string, error) {
	pid := unix.Getppid()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return "", err
	}
	var all []string
	for _, e := range entries {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
		if err != nil {
			return "", err
		}
		kind, _, _ := strings.Cut(target, ":")
		// What Go's runtime and this step's pipe add to them is closed on exec.
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, e.Name()))
		if err != nil {
			return "", err
		}
		if !closedOnExec(string(info)) {
			all = append(all, e.Name()+" "+kind)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n"), nil
}

func closedOnExec(fdinfo string) bool {
	for line := range strings.Lines(fdinfo) {
		if flags, ok := strings.CutPrefix(line, "flags:"); ok {
			var n int
			_, _ = fmt.Sscanf(strings.TrimSpace(flags), "%o", &n)
			return n&unix.O_CLOEXEC != 0
		}
	}
	return false
}

func ids() (string, error) {
	ruid, euid, suid := unix.Getresuid()
	rgid, egid, sgid := unix.Getresgid()
	groups, err := unix.Getgroups()
	return fmt.Sprintf("uid %d %d %d gid %d %d %d groups %v", ruid, euid, suid, rgid, egid, sgid, groups), err
}

// status are lines of /proc/self/status by their key, a comma between keys.
func status(keys string) (string, error) {
	// Of the process that the runner's guest started: Go's runtime catches signals for itself.
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", unix.Getppid()))
	if err != nil {
		return "", err
	}
	var all []string
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		if slices.Contains(strings.Split(keys, ","), key) {
			all = append(all, key+" "+strings.Join(strings.Fields(value), " "))
		}
	}
	return strings.Join(all, "\n"), nil
}

// dumpCore dies, with as large a core file as the hard limit allows.
func dumpCore() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return err
	}
	panic("as asked for")
}

// crash has a child die in dir, and looks for what it left.
func crash(dir string) (string, error) {
	before, err := list(dir)
	if err != nil {
		return "", err
	}
	cmd := exec.Command("/proc/self/exe", crashArg)
	cmd.Dir, cmd.Env = dir, []string{"GOTRACEBACK=crash"} // then a panic ends in SIGABRT
	err = cmd.Run()
	after, listErr := list(dir)
	if listErr != nil {
		return "", listErr
	}
	if before == after {
		return fmt.Sprint(err), syscall.ENOENT
	}
	matches, _ := filepath.Glob(filepath.Join(dir, "core*"))
	for _, m := range matches {
		_ = os.Remove(m)
	}
	return fmt.Sprintf("left %q", matches), nil
}

// traceChild starts a child under ptrace, as debuggers do, and ends it.
func traceChild() error {
	cmd := exec.Command("/proc/self/exe", childArg, `{"op":"nothing"}`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := syscall.Wait4(cmd.Process.Pid, nil, 0, nil); err != nil {
		return err
	}
	return cmd.Process.Kill()
}

func killChild() error {
	cmd := exec.Command("/proc/self/exe", sleepArg)
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := pidfdSignal(cmd.Process.Pid); err != nil {
		return err
	}
	return cmd.Process.Kill()
}

func fileSystem(path string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", err
	}
	if st.Type == unix.TMPFS_MAGIC {
		return fmt.Sprintf("tmpfs of %d MiB", int64(st.Blocks)*st.Bsize>>20), nil
	}
	return fmt.Sprintf("type %#x", st.Type), nil
}

// findSetuid lists the image's setuid and setgid programs.
func findSetuid() (string, error) {
	var found []string
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/usr/lib/openssh", "/bin", "/sbin"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil && info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
				found = append(found, filepath.Join(dir, e.Name()))
			}
		}
	}
	return strings.Join(found, " "), nil
}
