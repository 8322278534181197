package guest

import (
	"testing"

	"github.com/org/agent-sandbox/runner/link"
)

func TestCgroupLimits(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  link.Limits
	}{
		{"version 2", map[string]string{
			"cgroup.controllers": "cpu memory pids\n", "memory.max": "4294967296\n", "pids.max": "512\n", "cpu.max": "200000 100000\n",
		}, link.Limits{Version: 2, MemoryBytes: 4 << 30, PIDs: 512, CPUMicros: 200_000}},
		{"version 2, no limits", map[string]string{
			"cgroup.controllers": "", "memory.max": "max\n", "pids.max": "max\n", "cpu.max": "max 100000\n",
		}, link.Limits{Version: 2, MemoryBytes: -1, PIDs: -1, CPUMicros: -1}},
		{"version 2, not to be seen", map[string]string{"cgroup.controllers": ""}, link.Limits{Version: 2}},
		{"version 1", map[string]string{
			"memory/memory.limit_in_bytes": "4294967296\n", "pids/pids.max": "512\n", "cpu/cpu.cfs_quota_us": "150000\n",
		}, link.Limits{Version: 1, MemoryBytes: 4 << 30, PIDs: 512, CPUMicros: 150_000}},
		{"version 1, no limits", map[string]string{
			"memory/memory.limit_in_bytes": "9223372036854771712\n", "pids/pids.max": "max\n", "cpu/cpu.cfs_quota_us": "-1\n",
		}, link.Limits{Version: 1, MemoryBytes: -1, PIDs: -1, CPUMicros: -1}},
		{"nothing", nil, link.Limits{}},
		{"nonsense", map[string]string{"memory/memory.limit_in_bytes": "much\n", "pids/pids.max": "\n"}, link.Limits{}},
	} {
		if got := cgroupLimits(fixture(t, tt.files)); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestCgroupUsage(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  usage
	}{
		{"version 2", map[string]string{
			"cgroup.controllers": "", "memory.events": "low 0\noom 2\noom_kill 3\noom_group_kill 0\n", "memory.peak": "12345\n",
			"cpu.stat": "usage_usec 777\nuser_usec 1\n", "pids.peak": "21\n",
		}, usage{3, 12345, 777, 21}},
		{"version 2 before memory.peak and pids.peak", map[string]string{
			"cgroup.controllers": "", "memory.events": "oom_kill 0\n", "cpu.stat": "usage_usec 1\n",
		}, usage{0, -1, 1, -1}},
		{"version 1", map[string]string{
			"memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", "memory/memory.max_usage_in_bytes": "999\n",
			"cpuacct/cpuacct.usage": "5000999\n", "pids/pids.peak": "7\n",
		}, usage{1, 999, 5000, 7}},
		{"nothing", nil, usage{-1, -1, -1, -1}},
		{"nonsense", map[string]string{"memory/memory.oom_control": "oom_kill many\nmore\n", "cpuacct/cpuacct.usage": "?"}, usage{-1, -1, -1, -1}},
	} {
		if got := cgroupUsage(fixture(t, tt.files)); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
