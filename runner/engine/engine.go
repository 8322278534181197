// Package engine is the only part of the program that talks to a container engine, through Docker's API. It creates
// locked-down containers, moves bytes in and out of them, and finds and removes what a dead run left. It decides
// nothing about the policy: a Spec says what to create, and what an engine can't give is an error.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
)

// Label marks every object that we create in an engine; its value is the id of the run that created it.
const Label = "agent-sandbox"

// ErrUnavailable tells that no engine answers.
var ErrUnavailable = errors.New("no container engine answers")

// ErrForbidden tells that there is an engine, and that its socket is not for this user.
var ErrForbidden = errors.New("your user may not use the container engine's socket")

// Config says which engine to use.
type Config struct {
	// Host is the engine's address as in DOCKER_HOST, such as unix:///var/run/docker.sock; empty for the default.
	Host string
	// CacheDir holds what was learned about images and engines; it can be deleted at any time.
	CacheDir string
}

// Engine is a connection to a container engine.
type Engine struct {
	api   *client.Client
	cache string

	mu    sync.Mutex // guards facts
	facts Facts

	asked chan struct{} // closed when the answer to what Resume asked is there; nil when there is nothing to wait for
	said  Facts         // that answer
	err   error         // or why there is none
}

// Facts are what an engine says of itself.
type Facts struct {
	ID           string `json:"id"`
	Version      string `json:"version"`
	API          string `json:"api"`
	Kernel       string `json:"kernel"`
	OS           string `json:"os"`
	Arch         string `json:"arch"`
	Root         string `json:"root"`
	Storage      string `json:"storage"`
	CgroupDriver string `json:"cgroup_driver"`
	Cgroup       string `json:"cgroup"` // "1" or "2"
	// Runtime is the default OCI runtime, such as "runc".
	Runtime string `json:"runtime"`
	// Local: the engine runs on this host and sees its files under the same paths.
	Local bool `json:"local"`
	// UserNS: container root is not the host's root (rootless, or userns-remap).
	UserNS  bool `json:"user_ns"`
	Seccomp bool `json:"seccomp"`
	// IPv6: the kernel has it. Known only of a local engine.
	IPv6 bool `json:"ipv6"`
	// MemoryLimit, PIDsLimit and CPULimit tell whether the kernel enforces them.
	MemoryLimit bool `json:"memory_limit"`
	PIDsLimit   bool `json:"pids_limit"`
	CPULimit    bool `json:"cpu_limit"`
}

// Connect opens a connection and learns the engine's facts. The error wraps ErrUnavailable if nothing answers, and ErrForbidden if it may not ask.
func Connect(ctx context.Context, cfg Config) (*Engine, error) {
	e, err := open(cfg)
	if err != nil {
		return nil, err
	}
	if e.facts, err = e.ask(ctx); err != nil {
		return nil, errors.Join(err, e.api.Close())
	}
	return e, nil
}

// ErrChanged tells that an engine is not any more what it was.
var ErrChanged = errors.New("the container engine has changed since it was last used")

// Resume connects to an engine with the facts that it had the last time, and asks for them meanwhile: an engine takes 10 ms
// to say what it is, because it starts programs to find out. Nothing may be made on the strength of these facts before Confirm.
func Resume(ctx context.Context, cfg Config) (*Engine, error) {
	e, err := open(cfg)
	if err != nil {
		return nil, err
	}
	if !readCache(e.factsFile(), &e.facts) {
		if e.facts, err = e.ask(ctx); err == nil {
			err = e.remember()
		}
		if err != nil {
			return nil, errors.Join(err, e.api.Close())
		}
		return e, nil
	}
	e.asked = make(chan struct{})
	go func() {
		defer close(e.asked)
		e.said, e.err = e.ask(ctx)
	}()
	return e, nil
}

// Confirm waits for the engine's facts. It returns ErrChanged, once, if they are others than those that Resume started
// with; from then on Facts returns the right ones.
func (e *Engine) Confirm() error {
	if e.asked == nil {
		return nil
	}
	<-e.asked
	if e.err != nil {
		return e.err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.facts == e.said {
		return nil
	}
	e.facts = e.said
	if err := e.remember(); err != nil {
		return err
	}
	return ErrChanged
}

func (e *Engine) factsFile() string {
	return filepath.Join(e.cache, "hosts", safeName(e.Host())+".json")
}

// remember keeps the facts for the next Resume.
func (e *Engine) remember() error {
	b, err := json.Marshal(e.facts)
	if err != nil {
		return err
	}
	return writeCache(e.factsFile(), b)
}

func open(cfg Config) (*Engine, error) {
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if cfg.Host != "" {
		opts = append(opts, client.WithHost(cfg.Host))
	}
	api, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("container engine: %w\nhint: DOCKER_HOST is such as unix:///var/run/docker.sock or tcp://HOST:2376; without it the default holds", err)
	}
	if strings.HasPrefix(api.DaemonHost(), "ssh://") {
		return nil, errors.Join(fmt.Errorf("container engine: %s: engines are not reached by ssh from here\n"+
			"hint: forward its socket, `ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock HOST`, and set DOCKER_HOST=unix:///tmp/engine.sock", api.DaemonHost()), api.Close())
	}
	return &Engine{api: api, cache: cfg.CacheDir}, nil
}

// ask asks the engine for its facts.
func (e *Engine) ask(ctx context.Context) (Facts, error) {
	info, err := e.api.Info(ctx)
	if client.IsErrConnectionFailed(err) {
		if socket := SocketPath(e.Host()); socket != "" && forbidden(ctx, socket) {
			return Facts{}, fmt.Errorf("%w %s", ErrForbidden, socket)
		}
		return Facts{}, fmt.Errorf("%w at %s", ErrUnavailable, e.Host())
	}
	if err != nil {
		return Facts{}, fmt.Errorf("container engine at %s: %w", e.Host(), err)
	}
	return factsOf(info, e.api), nil
}

// forbidden tells whether a socket is there and not for us.
func forbidden(ctx context.Context, socket string) bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, os.ErrPermission)
}

func factsOf(info system.Info, api *client.Client) Facts {
	f := Facts{
		ID: info.ID, Version: info.ServerVersion, API: api.ClientVersion(), Kernel: info.KernelVersion,
		OS: info.OperatingSystem, Arch: goArch(info.Architecture), Root: info.DockerRootDir, Storage: info.Driver,
		CgroupDriver: info.CgroupDriver, Cgroup: info.CgroupVersion, Runtime: info.DefaultRuntime,
		MemoryLimit: info.MemoryLimit, PIDsLimit: info.PidsLimit, CPULimit: info.CPUCfsQuota,
	}
	for _, o := range info.SecurityOptions {
		switch name, _, _ := strings.Cut(strings.TrimPrefix(o, "name="), ","); name {
		case "rootless", "userns":
			f.UserNS = true
		case "seccomp":
			f.Seccomp = true
		}
	}
	f.Local = isLocal(info, api.DaemonHost())
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		f.IPv6 = f.Local
	}
	return f
}

// isLocal tells whether engine and runner share a file system. A socket alone proves nothing: it may lead out of a
// container or into a virtual machine. The engine's host name, kernel and data directory must be ours too.
func isLocal(info system.Info, host string) bool {
	if runtime.GOOS != "linux" || !strings.HasPrefix(host, "unix://") {
		return false
	}
	name, err := os.Hostname()
	if err != nil || name != info.Name {
		return false
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil || strings.TrimSpace(string(release)) != info.KernelVersion {
		return false
	}
	_, err = os.Stat(info.DockerRootDir)
	return err == nil
}

// goArch translates the kernel's name of an architecture to Go's.
func goArch(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	default:
		return machine
	}
}

// Facts returns what the engine says of itself, or said when it was last used: see Resume.
func (e *Engine) Facts() Facts {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.facts
}

// Host is the engine's address.
func (e *Engine) Host() string { return e.api.DaemonHost() }

// Close ends the connection, if there is one.
func (e *Engine) Close() error {
	if e == nil {
		return nil
	}
	if e.asked != nil {
		<-e.asked
	}
	return e.api.Close()
}

// SocketPath is the path of a host's Unix socket, empty if it is reached otherwise.
func SocketPath(host string) string {
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return ""
	}
	return path
}
