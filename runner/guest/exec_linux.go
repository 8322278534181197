package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

// orderFD is the descriptor over which that process gets its orders and reports.
const orderFD = 3

// exit statuses of a program that could not be started, as shells and Docker have them.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// order is what the process that becomes the agent is told.
type order struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	UID  int      `json:"uid"`
	GID  int      `json:"gid"`
	Lane bool     `json:"lane"` // the guest has a lane, whose socket must be gone
}

// report is what it answers: a measurement of itself, later perhaps why the program did not start. A channel that
// closes without the second report means that the program runs, since the descriptor closes on exec.
type report struct {
	Measured *link.Measurement `json:"measured,omitempty"`
	Error    string            `json:"error,omitempty"`
	Code     int               `json:"code,omitempty"`
}

// execute is the process that becomes the agent: it takes the agent's identity, measures itself, waits for the
// runner's approval, and replaces itself with the agent's program. It returns only if that failed, with the exit status.
func execute() int {
	if !skip("cloexec") {
		unix.CloseOnExec(orderFD)
	}
	channel := os.NewFile(orderFD, "orders")
	if err := execAgent(channel); err != nil {
		code := exitNotExecutable
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
			code = exitNotFound
		}
		_ = json.NewEncoder(channel).Encode(report{Error: err.Error(), Code: code})
		return code
	}
	return 0
}

func execAgent(channel *os.File) error {
	dec := json.NewDecoder(channel)
	var o order
	if err := dec.Decode(&o); err != nil {
		return fmt.Errorf("read orders: %w", err)
	}
	if err := becomeAgent(o.UID, o.GID); err != nil {
		return err
	}
	// Changing ids took the process' own /proc files away from it. It has no secrets: it is the agent already.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("dumpable: %w", err)
	}
	if err := volunteer(); err != nil {
		return err
	}
	m, err := measureSelf(o.Lane)
	if err != nil {
		return fmt.Errorf("measure: %w", err)
	}
	if err := json.NewEncoder(channel).Encode(report{Measured: &m}); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	var approved bool
	if err := dec.Decode(&approved); err != nil || !approved {
		return fmt.Errorf("not approved: %v", err)
	}
	if err := os.Chdir(o.Dir); err != nil {
		return err
	}
	path, err := lookPath(o.Argv[0], o.Env)
	if err != nil {
		return err
	}
	// Go starts with SIGPIPE and the like caught; exec restores the defaults. The mask was never changed.
	if !skip("signals") {
		if err := defaultSignals(); err != nil {
			return err
		}
	}
	err = syscall.Exec(path, o.Argv, o.Env)
	return &fs.PathError{Op: "exec", Path: path, Err: err}
}

// volunteer makes this process the better victim than the guest when memory runs out: the guest has to report that it
// happened (proc_pid_oom_score_adj(5)).
func volunteer() error {
	if skip("oom") {
		return nil
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0); err != nil {
		return fmt.Errorf("oom_score_adj: %w", err)
	}
	return nil
}

// lookPath finds a program as execvp(3) would with the agent's PATH, which is not the guest's.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	var denied error
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "."
		}
		file := filepath.Join(dir, name)
		st, err := os.Stat(file)
		if err != nil || st.IsDir() {
			continue
		}
		if err := unix.Access(file, unix.X_OK); err != nil {
			denied = &fs.PathError{Op: "exec", Path: file, Err: err}
			continue
		}
		if !filepath.IsAbs(file) {
			file = "./" + file
		}
		return file, nil
	}
	if denied != nil {
		return "", denied
	}
	return "", fmt.Errorf("exec %q: %w", name, exec.ErrNotFound)
}

// agent is the agent's process as the guest sees it.
type agent struct {
	pid     int
	channel *os.File
	dec     *json.Decoder
	// ends are the guest's ends of the agent's standard streams.
	ends endpoints
}

// startAgent starts the process that becomes the agent and returns its measurement. The program does not run yet.
func startAgent(o order, tty bool, size link.Size) (*agent, *link.Measurement, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	std, err := openStreams(tty, size)
	if err != nil {
		return nil, nil, errors.Join(err, ours.Close())
	}
	defer std.closeChild()
	attr := &os.ProcAttr{
		Dir:   "/",
		Env:   agentEnv(),
		Files: append(std.child[:], theirs),
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: tty},
	}
	p, err := os.StartProcess("/proc/self/exe", []string{"guest", link.ArgExec}, attr)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start the agent's process: %w", err), ours.Close())
	}
	a := &agent{pid: p.Pid, channel: ours, dec: json.NewDecoder(io.LimitReader(ours, link.MaxFrame)), ends: std.endpoints}
	_ = p.Release() // the reaper waits for it, with every other child of process 1
	if err := json.NewEncoder(ours).Encode(o); err != nil {
		return nil, nil, fmt.Errorf("give orders: %w", err)
	}
	var r report
	if err := a.dec.Decode(&r); err != nil {
		return nil, nil, fmt.Errorf("await measurement: %w", err)
	}
	if r.Measured == nil {
		return nil, nil, errors.New(r.Error)
	}
	return a, r.Measured, nil
}

// release lets the program start. A report tells why it didn't; nil means that it runs.
func (a *agent) release() (*report, error) {
	defer a.channel.Close()
	if err := json.NewEncoder(a.channel).Encode(true); err != nil {
		return nil, fmt.Errorf("approve: %w", err)
	}
	var r report
	err := a.dec.Decode(&r)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	return &r, err
}

// signal sends to the agent's process group.
func (a *agent) signal(number int) error { return unix.Kill(-a.pid, unix.Signal(number)) }

// socketPair returns two connected sockets, both closed on exec unless handed on.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "orders"), os.NewFile(uintptr(fds[1]), "orders"), nil
}
