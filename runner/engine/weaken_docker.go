//go:build docker

package engine

import (
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
)

// Weakened says which protections of a container are left out. It exists only in builds with the tag docker, so
// that the escape suite can show what each protection is good for.
type Weakened struct {
	Unconfined    bool     // no system call filter
	EngineFilter  bool     // the engine's filter instead of ours
	Capabilities  bool     // every capability
	NoNetAdmin    bool     // the right to change the sandbox's network: an engine that does not grant it
	NewPrivileges bool     // programs may gain privileges
	WritableRoot  bool     // the image's files can be written to
	SystemPaths   bool     // nothing of /proc and /sys is masked or read-only
	HostNetwork   bool     // the network of the engine's host, without the right to change it
	HostIPC       bool     // its System V IPC
	HostPIDs      bool     // its processes
	Devices       []string // its device nodes
	CoreFiles     bool     // a crash leaves a core file
	WritableGuest bool     // the guest's volume can be written to
	Unlimited     bool     // memory, and the number of processes
	Mounts        []Mount  // in place of those with the same target, or besides
	// Guest is a directory of the host with another guest program, and GuestEnv the environment of that.
	Guest    string
	GuestEnv []string
}

func (w Weakened) apply(cfg *container.Config, host *container.HostConfig) {
	if w.Unconfined || w.EngineFilter {
		host.SecurityOpt = without(host.SecurityOpt, "seccomp=")
	}
	if w.Unconfined {
		host.SecurityOpt = append(host.SecurityOpt, "seccomp=unconfined")
	}
	if w.Capabilities {
		host.CapDrop, host.CapAdd = nil, everyCapability()
	}
	if w.NoNetAdmin {
		host.CapAdd = without(host.CapAdd, "NET_ADMIN")
	}
	if w.NewPrivileges {
		host.SecurityOpt = without(host.SecurityOpt, "no-new-privileges")
	}
	if w.WritableRoot {
		host.ReadonlyRootfs = false
	}
	if w.SystemPaths {
		host.MaskedPaths, host.ReadonlyPaths = []string{}, []string{}
	}
	if w.HostNetwork {
		// Before anything else: with the right to, the guest would capture the host's own network.
		cfg.NetworkDisabled, host.NetworkMode, host.Sysctls = false, "host", nil
		host.CapAdd, host.CapDrop = []string{"SETGID", "SETPCAP", "SETUID"}, []string{"ALL"}
		cfg.Hostname = ""
	}
	if w.HostIPC {
		host.IpcMode = "host"
	}
	if w.HostPIDs {
		host.PidMode = "host"
	}
	for _, d := range w.Devices {
		host.Devices = append(host.Devices, container.DeviceMapping{PathOnHost: d, PathInContainer: d, CgroupPermissions: "rw"})
	}
	if w.CoreFiles {
		host.Ulimits = []*container.Ulimit{{Name: "core", Soft: -1, Hard: -1}}
	}
	if w.Unlimited {
		none := int64(-1)
		host.Memory, host.MemorySwap, host.PidsLimit = 0, 0, &none
	}
	w.applyMounts(cfg, host)
}

// everyCapability lists the capabilities that attacks need. ALL would fail where the engine itself lacks one.
func everyCapability() []string {
	return []string{
		"SYS_ADMIN", "SYS_MODULE", "SYS_BOOT", "SYS_CHROOT", "SYS_PTRACE", "SYS_RAWIO", "SYS_TIME", "SYS_TTY_CONFIG", "SYS_NICE",
		"SYSLOG", "NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "DAC_READ_SEARCH", "DAC_OVERRIDE", "MKNOD", "SETUID", "SETGID", "SETPCAP",
	}
}

func (w Weakened) applyMounts(cfg *container.Config, host *container.HostConfig) {
	for i := range host.Mounts {
		m := &host.Mounts[i]
		if m.Target != GuestMount {
			continue
		}
		if w.Guest != "" {
			*m = mount.Mount{Type: mount.TypeBind, Source: w.Guest, Target: GuestMount, ReadOnly: true}
			cfg.Env = append(cfg.Env, w.GuestEnv...)
		}
		m.ReadOnly = m.ReadOnly && !w.WritableGuest
	}
	for _, more := range w.Mounts {
		c := more.config("")
		c.VolumeOptions = nil
		for i, m := range host.Mounts {
			if m.Target == more.Target {
				host.Mounts = append(host.Mounts[:i:i], host.Mounts[i+1:]...)
				break
			}
		}
		host.Mounts = append(host.Mounts, c)
	}
}

// without leaves out the options that begin so.
func without(options []string, prefix string) []string {
	var rest []string
	for _, o := range options {
		if !strings.HasPrefix(o, prefix) {
			rest = append(rest, o)
		}
	}
	return rest
}
