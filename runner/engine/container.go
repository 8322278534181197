package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-units"
)

// Mount is something of the engine's host that is visible in the container.
type Mount struct {
	// Source is a path on the engine's host, or the name of a volume; empty for an anonymous volume.
	Source string `json:"source,omitempty"`
	Target string `json:"target"`
	// Volume: Source names a volume, not a path.
	Volume bool `json:"volume,omitempty"`
	// Tmpfs: an empty directory in memory, for hiding what is there.
	Tmpfs    bool `json:"tmpfs,omitempty"`
	ReadOnly bool `json:"read_only,omitempty"`
	// NoCopy keeps the engine from filling a volume with the image's files.
	NoCopy bool `json:"no_copy,omitempty"`
	// NonRecursive leaves out what is mounted below Source.
	NonRecursive bool `json:"non_recursive,omitempty"`
	// Options are the local volume driver's, for an anonymous volume such as an overlay.
	Options map[string]string `json:"options,omitempty"`

	labels map[string]string // of a named volume that is made with the container
}

// Tmpfs is a file system in memory that the container starts with, empty.
type Tmpfs struct {
	Target string `json:"target"`
	Size   int64  `json:"size"` // bytes
	Mode   string `json:"mode"` // octal
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	Exec   bool   `json:"exec"` // programs may be started from it
}

// Limits bound what the container may use; every one must be set.
type Limits struct {
	Memory int64   `json:"memory"` // bytes, swap included
	CPUs   float64 `json:"cpus"`
	PIDs   int64   `json:"pids"`
	Shm    int64   `json:"shm"` // bytes of /dev/shm
}

// Spec is everything that a container is created from.
type Spec struct {
	Run      string  `json:"run"`
	Image    string  `json:"image"` // the image's id
	Guest    Guest   `json:"guest"`
	Mounts   []Mount `json:"mounts"`
	Tmpfs    []Tmpfs `json:"tmpfs"`
	Limits   Limits  `json:"limits"`
	Seccomp  string  `json:"-"` // a profile as JSON; empty for the engine's default
	Hostname string  `json:"hostname"`
	// IPv6 switches it on, so that the guest sees dials to IPv6 addresses as well. The engine leaves it off in a
	// container without a network.
	IPv6 bool `json:"ipv6"`
	// Loopback: the guest gets no right to change the network, and listens on loopback addresses instead.
	Loopback bool `json:"loopback,omitempty"`
	// Claim: the guest gives directories to the agent before it starts.
	Claim bool `json:"claim"`

	Weakened `json:"-"`
}

// capabilities are what the guest needs to capture the network and to become the agent. It drops all of them, and the
// right to regain any, before the agent exists.
func (s Spec) capabilities() []string {
	all := []string{"SETGID", "SETPCAP", "SETUID"}
	if !s.Loopback {
		all = append(all, "NET_ADMIN")
	}
	if s.Claim {
		all = append(all, "CHOWN")
	}
	return all
}

// LoopbackResolver is the resolver's address in a sandbox without the right to change its network.
const LoopbackResolver = "127.0.0.53"

// sysctls are settings of the sandbox's own network.
func (s Spec) sysctls() map[string]string {
	switch {
	case s.Loopback:
		// The guest opens listeners when it has no capability any more.
		return map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
	case s.IPv6:
		return map[string]string{"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.lo.disable_ipv6": "0"}
	}
	return nil
}

// Container is a created container.
type Container struct {
	engine *Engine
	ID     string
}

// Create creates the container of a run. It does not run yet. Cancelling ctx does not stop it: the engine would go on
// all the same, and nobody would know what to remove.
func (e *Engine) Create(ctx context.Context, s Spec) (*Container, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := unstoppable(ctx)
	defer cancel()
	cfg, host := s.config()
	resp, err := e.api.ContainerCreate(ctx, cfg, host, &network.NetworkingConfig{}, nil, "agent-sandbox-"+s.Run)
	if err != nil {
		return nil, explain("create container", err)
	}
	return &Container{engine: e, ID: resp.ID}, nil
}

// createTimeout bounds a call that can't be cancelled. It takes a tenth of a second.
const createTimeout = 30 * time.Second

func unstoppable(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
}

func (s Spec) config() (*container.Config, *container.HostConfig) {
	cfg := &container.Config{
		Image:    s.Image,
		Hostname: s.Hostname,
		// A new network namespace as without it, but the engine has no part in it: no address, no resolver, and none of
		// the calls back into the engine that take a third of a container's start. The guest does all there is to do.
		NetworkDisabled: true,
		User:            "0:0", // the guest; the agent never has this id unless the policy says so
		Entrypoint:      []string{guestPath},
		WorkingDir:      "/",
		Labels:          map[string]string{Label: s.Run},
		AttachStdin:     true,
		AttachStdout:    true,
		AttachStderr:    true,
		OpenStdin:       true,
		StdinOnce:       true, // when the runner dies the guest reads an end of file, and ends
		Healthcheck:     &container.HealthConfig{Test: []string{"NONE"}},
	}
	security := []string{"no-new-privileges"}
	if s.Seccomp != "" {
		security = append(security, "seccomp="+s.Seccomp)
	}
	host := &container.HostConfig{
		AutoRemove:     true,
		NetworkMode:    "none",
		ReadonlyRootfs: true,
		CapDrop:        []string{"ALL"},
		CapAdd:         s.capabilities(),
		SecurityOpt:    security,
		IpcMode:        "private",
		CgroupnsMode:   "private",
		LogConfig:      container.LogConfig{Type: "none"},
		ShmSize:        s.Limits.Shm,
		Tmpfs:          map[string]string{},
		Resources: container.Resources{
			Memory:     s.Limits.Memory,
			MemorySwap: s.Limits.Memory,
			NanoCPUs:   int64(s.Limits.CPUs * 1e9),
			PidsLimit:  &s.Limits.PIDs,
			// A core file in the workspace would hold what memory held.
			Ulimits: []*container.Ulimit{{Name: "core", Soft: 0, Hard: 0}},
		},
	}
	host.Sysctls = s.sysctls()
	for _, t := range s.Tmpfs {
		host.Tmpfs[t.Target] = t.options()
	}
	host.Mounts = append(host.Mounts, s.Guest.mounts(s.Loopback)...)
	for _, m := range s.Mounts {
		host.Mounts = append(host.Mounts, m.config(s.Run))
	}
	s.Weakened.apply(cfg, host)
	return cfg, host
}

func (t Tmpfs) options() string {
	exec := "noexec"
	if t.Exec {
		exec = "exec"
	}
	return fmt.Sprintf("rw,%s,nosuid,nodev,size=%d,mode=%s,uid=%d,gid=%d", exec, t.Size, t.Mode, t.UID, t.GID)
}

func (m Mount) config(run string) mount.Mount {
	c := mount.Mount{Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
	switch {
	case m.Tmpfs:
		c.Type = mount.TypeTmpfs
	case m.Volume:
		c.Type = mount.TypeVolume
		c.VolumeOptions = &mount.VolumeOptions{NoCopy: m.NoCopy, Labels: withRun(m.labels, run)}
		if m.Options != nil {
			c.VolumeOptions.DriverConfig = &mount.Driver{Name: "local", Options: m.Options}
		}
	default:
		c.Type = mount.TypeBind
		// The propagation is left to the engine: rprivate, but for what is in its own directory, such as a volume, where it insists on rslave.
		c.BindOptions = &mount.BindOptions{NonRecursive: m.NonRecursive}
	}
	return c
}

// Helper is a container of our own program beside a run: it sees one directory of the host.
type Helper struct {
	Run          string
	Image        string
	Guest        Guest
	Args         []string
	Dir          Mount    // the one thing of the host that it sees
	Capabilities []string // all that it gets
}

// CreateHelper creates a helper's container.
func (e *Engine) CreateHelper(ctx context.Context, h Helper) (*Container, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := unstoppable(ctx)
	defer cancel()
	pids := int64(64)
	resp, err := e.api.ContainerCreate(ctx,
		&container.Config{
			Image: h.Image, User: "0:0", Entrypoint: append([]string{guestPath}, h.Args...),
			Labels: map[string]string{Label: h.Run}, AttachStdout: true, AttachStderr: true, NetworkDisabled: true,
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		},
		&container.HostConfig{
			AutoRemove: true, NetworkMode: "none", ReadonlyRootfs: true, LogConfig: container.LogConfig{Type: "none"},
			CapDrop: []string{"ALL"}, CapAdd: h.Capabilities, SecurityOpt: []string{"no-new-privileges"},
			Resources: container.Resources{Memory: 256 << 20, MemorySwap: 256 << 20, PidsLimit: &pids},
			Mounts:    append(h.Guest.mounts(false), h.Dir.config(h.Run)),
		}, &network.NetworkingConfig{}, nil, "")
	if err != nil {
		return nil, fmt.Errorf("create helper: %w", err)
	}
	return &Container{engine: e, ID: resp.ID}, nil
}

// Attach connects to the container's standard streams; to be called before Start. Reads yield its standard output.
// What it writes to its standard error goes to diag.
func (c *Container) Attach(ctx context.Context, diag io.Writer) (io.ReadWriteCloser, error) {
	resp, err := c.engine.api.ContainerAttach(ctx, c.ID, container.AttachOptions{
		Stream: true, Stdin: true, Stdout: true, Stderr: true,
	})
	if err != nil {
		return nil, fmt.Errorf("attach to container: %w", err)
	}
	return &attached{conn: resp.Conn, demux: demux{r: resp.Reader, diag: diag}}, nil
}

type attached struct {
	conn net.Conn
	demux
}

func (a *attached) Write(b []byte) (int, error) { return a.conn.Write(b) }
func (a *attached) Close() error                { return a.conn.Close() }

// Start starts the container's guest. The error wraps ErrGuestMissing if it is about the guest's files.
func (c *Container) Start(ctx context.Context) error {
	if err := c.engine.api.ContainerStart(ctx, c.ID, container.StartOptions{}); err != nil {
		return explain("start container", err)
	}
	return nil
}

// ErrGuestMissing tells that the guest's files may not be in the engine any more: somebody pruned its volume.
var ErrGuestMissing = errors.New("the guest can't be used")

// ErrNoAdmin tells that the engine refuses to let a container change its own network.
var ErrNoAdmin = errors.New("the engine grants no CAP_NET_ADMIN")

// explain tells the failures of the guest's files, and of the right that it needs, from others. There is no code for
// either in an engine's answer.
func explain(doing string, err error) error {
	says := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(err.Error(), w) })
	}
	switch {
	case says(GuestMount, guestVolume):
		return fmt.Errorf("%s: %w: %w", doing, ErrGuestMissing, err)
	case says("NET_ADMIN", "apply caps"): // the second are runc's words
		return fmt.Errorf("%s: %w: %w", doing, ErrNoAdmin, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// CopyIn unpacks a tar stream below dir, with the owners that it names.
func (c *Container) CopyIn(ctx context.Context, dir string, tar io.Reader) error {
	err := c.engine.api.CopyToContainer(ctx, c.ID, dir, tar, container.CopyToContainerOptions{})
	if err != nil {
		return fmt.Errorf("copy into the container: %w", err)
	}
	return nil
}

// CopyOut returns path, a file or a directory, as a tar stream, as docker cp does. The error wraps fs.ErrNotExist's
// equivalent of the engine if there is none: see IsNotFound.
func (c *Container) CopyOut(ctx context.Context, path string) (io.ReadCloser, error) {
	r, _, err := c.engine.api.CopyFromContainer(ctx, c.ID, path)
	if err != nil {
		return nil, fmt.Errorf("copy %s out of the container: %w", path, err)
	}
	return r, nil
}

// IsNotFound tells whether the engine knows no such object or path.
func IsNotFound(err error) bool { return errdefs.IsNotFound(err) }

// ByteSize prints a size for people, such as 4GiB.
func ByteSize(n int64) string { return units.BytesSize(float64(n)) }
