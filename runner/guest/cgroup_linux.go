package guest

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/org/agent-sandbox/runner/link"
)

// cgroupRoot is where the engine mounts the container's own control group, read-only.
const cgroupRoot = "/sys/fs/cgroup"

// unlimited is what version 1 shows for "no limit": the highest multiple of the page size.
const unlimited = math.MaxInt64 &^ 0xfff

// cgroupLimits reads the limits of the container from version 2 (cgroup-v2.rst) or version 1 files.
func cgroupLimits(root string) link.Limits {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return link.Limits{
			Version:     2,
			MemoryBytes: cgroupNumber(root, "memory.max"),
			PIDs:        cgroupNumber(root, "pids.max"),
			CPUMicros:   cgroupNumber(root, "cpu.max"),
		}
	}
	l := link.Limits{
		MemoryBytes: cgroupNumber(root, "memory/memory.limit_in_bytes"),
		PIDs:        cgroupNumber(root, "pids/pids.max"),
		CPUMicros:   cgroupNumber(root, "cpu/cpu.cfs_quota_us"),
	}
	if l != (link.Limits{}) {
		l.Version = 1
	}
	return l
}

// cgroupNumber is the first number of a file: -1 for "max" or no limit, 0 for a file that cannot be read.
func cgroupNumber(root, name string) int64 {
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if first == "max" {
		return -1
	}
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0
	}
	if n >= unlimited {
		return -1
	}
	return n
}

// usage is what the container has used, -1 for what cannot be seen.
type usage struct{ oomKills, peakMemory, cpuMicros, peakPIDs int64 }

func cgroupUsage(root string) usage {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return usage{
			oomKills:   cgroupField(root, "memory.events", "oom_kill"),
			peakMemory: seen(cgroupNumber(root, "memory.peak")),
			cpuMicros:  cgroupField(root, "cpu.stat", "usage_usec"),
			peakPIDs:   seen(cgroupNumber(root, "pids.peak")),
		}
	}
	nanos := seen(cgroupNumber(root, "cpuacct/cpuacct.usage"))
	if nanos > 0 {
		nanos /= 1000
	}
	return usage{
		oomKills:   cgroupField(root, "memory/memory.oom_control", "oom_kill"),
		peakMemory: seen(cgroupNumber(root, "memory/memory.max_usage_in_bytes")),
		cpuMicros:  nanos,
		peakPIDs:   seen(cgroupNumber(root, "pids/pids.peak")),
	}
}

// seen turns cgroupNumber's 0 for "cannot be read" into -1: a measured zero does not happen for these.
func seen(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

// cgroupField reads one line "key number" of a flat keyed file.
func cgroupField(root, name, key string) int64 {
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(b)) {
		if k, v, _ := strings.Cut(strings.TrimSpace(line), " "); k == key {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil {
				return n
			}
		}
	}
	return -1
}
