package runner

import "testing"

// hostProofs lists each way to the host, as credentialAttacks does. What the filter alone stops is one entry of the suite, with each call in the tests
// of the engine.
func hostProofs() map[string][]string {
	const host, calls = "runner TestEscapeHost", "runner TestEscapeSystemCalls: system calls that the filter denies"
	return map[string][]string{
		"docker.sock":                     {host + ": /run/docker.sock", host + ": /var/run/docker.sock"},
		"nsenter, unshare, namespaces":    {host + ": joining the guest's namespaces", host + ": a user namespace", host + ": another UTS namespace", "runner TestEscapeNetwork: a network namespace of its own", calls},
		"mount":                           {host + ": mounting a file system", host + ": mounting another /proc", host + ": binding one directory to another", host + ": making the root writable", host + ": uncovering what a mount hides", "runner TestEscapeMountTable: an unplanned mount"},
		"ptrace":                          {host + ": tracing the guest", host + ": reading the guest's memory", host + ": writing the guest's memory", host + ": a process of the host"},
		"/proc/1":                         {host + ": environ", host + ": mem", host + ": root", host + ": fd/0", host + ": writing frames to the guest's output"},
		"/proc/sys, /sys, control groups": {host + ": another core_pattern", host + ": writing to /sys", host + ": /sys/fs/cgroup/memory/release_agent"},
		"device nodes":                    {host + ": a device node in the workspace", host + ": a device node in memory", host + ": /dev/kmsg"},
		"setuid programs":                 {"runner TestEscapeSetuid: a setuid program of root's"},
		"keyctl, io_uring":                {host + ": a key ring", "runner TestEscapeSystemCalls: keyctl", "runner TestEscapeSystemCalls: io_uring"},
		"open_by_handle_at":               {host + ": root of the host's file system by inode number (shocker)"},
		"abstract Unix sockets":           {"runner TestEscapeNetwork: the host's abstract Unix socket"},
		"core dumps":                      {host + ": a core file"},
		"fork and memory bombs":           {"runner TestEscapeBombs: a fork bomb", "runner TestEscapeBombs: a memory bomb"},
		"filling disks and logs":          {"runner TestEscapeFills: filling the host's disk from the workspace", "runner TestEscapeFills: filling the host's disk to the last byte", "runner TestEscapeFills: /dev/shm", "runner TestEscapeFloods: a flood of output", "runner TestEscapeFloods: a flood of refusals"},
		"killing the guest":               {host + ": signalling the guest", "runner TestEscapeManifestGuest: killing the guest"},
		"impersonating the guest":         {"runner TestEscapeForgedFrames: frames of the guest's in the agent's output", "runner TestEscapeLane: the socket of the guest's lane", "runner TestEscapeNetwork: listening in the relay's place"},
		"CAP_NET_ADMIN":                   {"runner TestEscapeNetwork: regaining CAP_NET_ADMIN by capset", "runner TestEscapeNetwork: regaining CAP_NET_ADMIN by the ambient set"},
		"flushing the redirect":           {"runner TestEscapeNetwork: netlink: flushing the redirect", "runner TestEscapeNetwork: netlink: removing the capturing route"},
		"the terminal, ignored signals":   {"runner TestEscapeInheritance: the host's terminal", "runner TestEscapeInheritance: ignored or blocked signals"},
	}
}

// TestHostAttacks: what the table names is there.
func TestHostAttacks(t *testing.T) { checkProofs(t, hostProofs()) }

// workspaceProofs lists each way by which what an agent leaves could act on the host.
func workspaceProofs() map[string][]string {
	const gate, files = "runner TestEscapeGate", "runner/workspace "
	return map[string][]string{
		"symlinks out":                   {gate + ": link-absolute", gate + ": link-up", gate + ": link-round", gate + ": link-proc"},
		"hard links out":                 {"runner TestEscapeHardLink: writing through a hard link out of the tree", files + "TestApplyLeavesHardLinksAlone"},
		"swaps between review and apply": {"runner TestEscapeSwap: a directory swapped for a symlink before apply", files + "TestApplyNeverFollowsASwappedDirectory", files + "TestApplyUnguardedFollowsASwap"},
		".git by other names":            {gate + ": .GIT/hooks/pre-commit", gate + ": git~1/config", gate + ": .git./config"},
		"what git runs":                  {gate + ": .git/hooks/pre-commit", gate + ": .git/config", gate + ": .git/info/attributes", "runner TestEscapeGitRuns: git on the host runs what the agent left"},
		"submodules and worktrees":       {gate + ": .git/modules/sub/config", gate + ": .git/worktrees/w/gitdir", gate + ": submodule/.git", gate + ": .gitmodules"},
		"files absent at the start":      {gate + ": .husky/pre-commit", gate + ": .envrc", gate + ": .vscode/tasks.json", gate + ": .github/workflows/deploy.yml"},
		"setuid bits":                    {gate + ": setuid", gate + ": setgid", files + "TestApplyStripsSpecialBits", files + "TestApplyUnguardedSetsSpecialBits"},
		"device nodes":                   {"runner TestEscapeArchivedDevice: a device node in the change set", gate + ": fifo", files + "TestApplyNeverMakesOtherNodes", files + "TestApplyUnguardedMakesNoDevice"},
		"names":                          {gate + ": new\nline", gate + ": tab\tulator", gate + ": escape\x1b[31mcode", gate + ": inv\xffalid"},
		"a directory made again":         {"runner TestEscapeRemade: old files behind a directory that was removed and made again", files + "TestExtractOverlayWithoutAttributes"},
		"a renamed directory":            {"runner TestEscapeRemade", files + "TestExtractOverlayRenames", files + "TestExtractOverlayWithoutAttributes"},
		"traversal in an archive":        {"runner TestEscapeHostileArchive: ../ in a name", "runner TestEscapeHostileArchive: an absolute name", "runner TestEscapeHostileArchive: a file below a symlink", files + "TestApplyRefusesTraversal", files + "TestApplyUnguardedTraverses"},
	}
}

// TestWorkspaceAttacks: what the table names is there.
func TestWorkspaceAttacks(t *testing.T) { checkProofs(t, workspaceProofs()) }
