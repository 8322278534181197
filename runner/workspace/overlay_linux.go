package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/policy"
)

// prepareOverlay makes upper/ and work/ and the mount that puts them over the project. Its errors are
// *UnsupportedError where the engine or the kernel can't give an overlay at all.
func (v *View) prepareOverlay() error {
	if err := v.overlayPossible(); err != nil {
		return err
	}
	info, err := os.Stat(v.cfg.Project)
	if err != nil {
		return fmt.Errorf("prepare overlay: %w", err)
	}
	if owner := statOf(info).owner; os.Geteuid() == 0 && owner.UID != v.cfg.UID {
		v.swap = idSwap{a: owner, b: IDs{UID: v.cfg.UID, GID: v.cfg.GID}}
	}
	opts, err := v.overlayMount()
	if err != nil {
		return err
	}
	if err := v.makeLayers(info); err != nil {
		return fmt.Errorf("prepare overlay: %w", err)
	}
	v.Mounts = []Mount{{
		Type:    MountVolume,
		NoCopy:  true,
		Options: map[string]string{"type": "overlay", "device": "overlay", "o": opts},
	}}
	return nil
}

// overlayPossible asks what can be known without trying.
func (v *View) overlayPossible() error {
	e := v.cfg.Engine
	switch {
	case e.blind() != "":
		return unsupported(policy.ModeOverlay, "use mode copy", "%s", e.blind())
	case e.UserNS:
		return unsupported(policy.ModeOverlay, "use mode copy", "the engine runs in a user namespace (rootless or userns-remap), where the agent's uid is not the project's")
	case e.Refused != "":
		return unsupported(policy.ModeOverlay, "use mode copy", "the engine refused it: %s", e.Refused)
	case v.cfg.UID == 0 && os.Geteuid() != 0:
		return unsupported(policy.ModeOverlay, "run the agent as a user, or agent-sandbox as root", "what root writes inside could not be read by uid %d", os.Geteuid())
	}
	return upperPossible(v.cfg.StateDir)
}

// upperPossible knows the filesystems on which the kernel refuses an upper directory, so that mode auto
// learns it before the engine does.
func upperPossible(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	names := map[int64]string{
		unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.NFS_SUPER_MAGIC: "NFS", unix.SMB2_SUPER_MAGIC: "SMB", unix.SMB_SUPER_MAGIC: "SMB",
		unix.CIFS_SUPER_MAGIC: "SMB", unix.FUSE_SUPER_MAGIC: "FUSE", unix.V9FS_MAGIC: "9p", unix.MSDOS_SUPER_MAGIC: "FAT", unix.ECRYPTFS_SUPER_MAGIC: "eCryptfs",
	}
	if name, bad := names[int64(uint32(st.Type))]; bad {
		return unsupported(policy.ModeOverlay, "set XDG_STATE_HOME to a directory on a local disk; in a container, on a volume",
			"the run's state is on %s, which can't hold the upper layer", name)
	}
	return nil
}

// overlayMount decides how the engine is told of the three directories: through our descriptors where it can be, since
// the agent reads the options in /proc/self/mountinfo, and a path tells the names of people and projects.
func (v *View) overlayMount() (string, error) {
	if v.swap != (idSwap{}) {
		return v.idmappedOverlay()
	}
	if !v.cfg.Engine.SharesPIDs {
		opts, err := v.overlayPaths()
		if err != nil {
			return "", unsupported(policy.ModeOverlay, "use another directory, or mode copy", "%v", err)
		}
		v.lower("the agent can read where the project and the run's state are on the host, because the engine has other processes in /proc")
		return opts, nil
	}
	// With root and Linux 6.15 clones, which work in whatever mount namespace the engine has; else the directories as
	// they are, for an engine in our own.
	open := openPath
	if os.Geteuid() == 0 && kernelAtLeast(6, 15) {
		open = cloneMount
	}
	lower, err := v.hold(open(v.cfg.Project))
	if err != nil {
		return "", err
	}
	state, err := v.hold(open(v.cfg.StateDir))
	if err != nil {
		return "", err
	}
	return overlayOptions(lower, state+"/upper", state+"/work")
}

func openPath(dir string) (*os.File, error) {
	return os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
}

func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	return err == nil && (a > major || a == major && b >= minor)
}

// overlayPaths names the three directories as the engine does.
func (v *View) overlayPaths() (string, error) {
	var dirs [3]string
	for i, dir := range []string{v.cfg.Project, v.upper(), v.work()} {
		var err error
		if dirs[i], err = v.cfg.Engine.path(dir); err != nil {
			return "", err
		}
	}
	return overlayOptions(dirs[0], dirs[1], dirs[2])
}

// idmappedOverlay gives the project to the agent's uid although it belongs to another, without changing it.
func (v *View) idmappedOverlay() (string, error) {
	why := fmt.Sprintf("the project belongs to uid %d and the agent is uid %d", v.swap.a.UID, v.swap.b.UID)
	const hint = "give the project to an ordinary user, or use mode copy"
	if !v.cfg.Engine.SharesPIDs {
		return "", unsupported(policy.ModeOverlay, hint, "%s, and the engine, which has other processes in /proc, can't reach a mapped mount", why)
	}
	tree, err := idmappedMount(v.cfg.Project, v.swap)
	if err != nil {
		return "", unsupported(policy.ModeOverlay, hint, "%s, and a mapped mount is not possible: %v", why, err)
	}
	lower, err := v.hold(tree, nil)
	if err != nil {
		return "", err
	}
	state, err := v.hold(cloneMount(v.cfg.StateDir))
	if err != nil {
		return "", err
	}
	if err := v.probe(lower, state); err != nil {
		return "", unsupported(policy.ModeOverlay, hint+"; Linux 6.15 and later can", "%s, and this kernel refuses a mapped mount as the lower layer: %v", why, err)
	}
	return overlayOptions(lower, state+"/upper", state+"/work")
}

// hold keeps a descriptor open until Close and gives its path.
func (v *View) hold(f *os.File, err error) (string, error) {
	if err != nil {
		return "", fmt.Errorf("prepare overlay: %w", err)
	}
	v.held = append(v.held, f)
	return procPath(f.Fd()), nil
}

// probe has the kernel build the overlay once, attached to nothing. "volatile" spares the sync of the whole host
// filesystem that the end of an overlay means, and since it marks work as used up, the probe has its own.
func (v *View) probe(lower, state string) (err error) {
	dir, err := os.MkdirTemp(v.cfg.StateDir, "probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeTree(dir)) }()
	for _, name := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
	}
	layers := filepath.Join(state, filepath.Base(dir)) // short: fsconfig(2) takes 255 bytes
	return overlayCreate([][2]string{
		{"lowerdir", lower},
		{"upperdir", layers + "/upper"},
		{"workdir", layers + "/work"},
		{"redirect_dir", "on"},
		{"metacopy", "off"},
		{"index", "off"},
		{"volatile", ""},
	})
}

func overlayCreate(options [][2]string) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fd)
	for _, o := range options {
		if o[1] == "" {
			err = unix.FsconfigSetFlag(fd, o[0])
		} else {
			err = unix.FsconfigSetString(fd, o[0], o[1])
		}
		if err != nil {
			return fmt.Errorf("option %s: %w", o[0], err)
		}
	}
	return os.NewSyscallError("create", unix.FsconfigCreate(fd))
}

// makeLayers creates upper/ and work/. The merged root shows upper's owner and mode, so these are the project's.
func (v *View) makeLayers(project fs.FileInfo) error {
	if err := os.Mkdir(v.work(), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(v.upper(), 0o700); err != nil {
		return err
	}
	return v.likeLower(v.upper(), project)
}

// likeLower gives a directory in upper/ the owner, mode and times that the lower one shows the agent. Without
// root the owner stays ours, which is the agent's too.
func (v *View) likeLower(path string, lower fs.FileInfo) error {
	if os.Geteuid() == 0 {
		id := v.swap.of(statOf(lower).owner)
		if err := os.Lchown(path, id.UID, id.GID); err != nil {
			return err
		}
	}
	if err := os.Chmod(path, lower.Mode()&modeBits); err != nil {
		return err
	}
	return os.Chtimes(path, time.Time{}, lower.ModTime())
}

// SharesPIDs reports whether the process that listens on a Unix socket has the same /proc as this one, so that
// /proc/<our pid>/fd/<n> means the same there and can be mounted. Anything it can't prove is false.
func SharesPIDs(socket string) bool {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credErr != nil {
		return false
	}
	// 0 is a process that has no id here: it is in an outer namespace. One of an inner namespace has several.
	pid := int(cred.Pid)
	if pid <= 0 || namespaceDepth(pid) != 1 {
		return false
	}
	return os.Geteuid() == 0 || sameMounts(pid) // root clones the mounts, which are in no namespace then
}

// sameMounts compares the ids of the root's mounts, which no two namespaces share.
func sameMounts(pid int) bool {
	theirs, ours := rootMounts(strconv.Itoa(pid)), rootMounts("self")
	return len(ours) > 0 && slices.Equal(theirs, ours)
}

func rootMounts(pid string) (ids []string) {
	info, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(info)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == "/" {
			ids = append(ids, fields[0])
		}
	}
	return ids
}

func namespaceDepth(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return len(strings.Fields(ids))
		}
	}
	return 0
}
