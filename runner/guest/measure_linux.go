package guest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

// measureSelf reads what decides the rights of the calling process and where it is. The agent's process calls it
// just before it becomes the agent's program. With a lane its socket counts as a way to the guest.
func measureSelf(lane bool) (link.Measurement, error) {
	var m link.Measurement
	var errs [5]error
	m.Agent, errs[0] = measureProcess("self")
	m.Guest, errs[1] = measureProcess("1")
	m.Namespaces, errs[2] = namespaces()
	m.Mounts, errs[3] = mounts("/proc/self/mountinfo")
	m.Interfaces, errs[4] = interfaces()
	m.Cgroup = cgroupLimits(cgroupRoot)
	m.Isolation = tryIsolation()
	if _, err := os.Lstat(link.LaneSocket); lane && err == nil {
		m.Isolation.Reach = append(m.Isolation.Reach, link.LaneSocket)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		m.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	return m, errors.Join(errs[:]...)
}

// measureProcess reads /proc/PID/task/*/status: a thread that kept a capability would be a way back. Threads must
// agree; the first one that differs is an error.
func measureProcess(pid string) (link.Process, error) {
	paths, err := filepath.Glob("/proc/" + pid + "/task/*/status")
	if err != nil || len(paths) == 0 {
		return link.Process{}, fmt.Errorf("no threads of process %s: %v", pid, err)
	}
	var first link.Process
	seen := 0
	for _, path := range paths {
		p, err := readStatus(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread ended meanwhile
		}
		if err != nil {
			return link.Process{}, err
		}
		if seen > 0 && !sameRights(first, p) {
			return link.Process{}, fmt.Errorf("threads of process %s differ in their rights: %s", pid, path)
		}
		first = p
		seen++
	}
	first.Threads = seen
	return first, nil
}

func sameRights(a, b link.Process) bool {
	return a.UID == b.UID && a.GID == b.GID && a.CapInh == b.CapInh && a.CapPrm == b.CapPrm && a.CapEff == b.CapEff &&
		a.CapBnd == b.CapBnd && a.CapAmb == b.CapAmb && a.NoNewPrivs == b.NoNewPrivs && a.Seccomp == b.Seccomp
}

func readStatus(path string) (link.Process, error) {
	f, err := os.Open(path)
	if err != nil {
		return link.Process{}, err
	}
	defer f.Close()
	var p link.Process
	s := bufio.NewScanner(f)
	for s.Scan() {
		key, value, _ := strings.Cut(s.Text(), ":")
		value = strings.TrimSpace(value)
		var err error
		switch key {
		case "Uid":
			p.UID, err = fourIDs(value)
		case "Gid":
			p.GID, err = fourIDs(value)
		case "Groups":
			p.Groups, err = ids(value)
		case "CapInh":
			p.CapInh = value
		case "CapPrm":
			p.CapPrm = value
		case "CapEff":
			p.CapEff = value
		case "CapBnd":
			p.CapBnd = value
		case "CapAmb":
			p.CapAmb = value
		case "NoNewPrivs":
			p.NoNewPrivs = value == "1"
		case "Seccomp":
			p.Seccomp, err = strconv.Atoi(value)
		}
		if err != nil {
			return link.Process{}, fmt.Errorf("%s: %s: %w", path, key, err)
		}
	}
	return p, s.Err()
}

func ids(s string) ([]int, error) {
	var out []int
	for _, f := range strings.Fields(s) {
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

func fourIDs(s string) ([4]int, error) {
	all, err := ids(s)
	if err != nil || len(all) != 4 {
		return [4]int{}, fmt.Errorf("want four ids, have %q", s)
	}
	return [4]int(all), nil
}

func namespaces() (map[string]string, error) {
	entries, err := os.ReadDir("/proc/self/ns")
	if err != nil {
		return nil, err
	}
	all := make(map[string]string, len(entries))
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/ns/" + e.Name())
		if err != nil {
			return nil, err
		}
		all[e.Name()] = target
	}
	return all, nil
}

// mounts parses a mountinfo file (proc_pid_mountinfo(5)).
func mounts(path string) ([]link.Mount, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []link.Mount
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20) // overlay options hold many paths
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields, super := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(super) < 1 {
			return nil, fmt.Errorf("%s: malformed line %q", path, s.Text())
		}
		options := fields[5]
		all = append(all, link.Mount{
			Target:   unescapeOctal(fields[4]),
			Type:     super[0],
			ReadOnly: options == "ro" || strings.HasPrefix(options, "ro,"),
			Options:  options,
			Root:     unescapeOctal(fields[3]),
		})
	}
	return all, s.Err()
}

// unescapeOctal undoes the kernel's \040 for a space and the like.
func unescapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func interfaces() ([]string, error) {
	b, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, line := range strings.Split(string(b), "\n") {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names, nil
}
