package link

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// Version is the number of this protocol. Runner and guest must agree on it exactly: they ship together.
const Version = 5

// MaxFrame bounds one frame in bytes. A whole process environment (the kernel's limit for one argument is
// 128 KiB) fits; a hostile peer cannot make the other side allocate more.
const MaxFrame = 1 << 20

// ErrFrame tells that the peer broke the protocol. The session must be closed: nothing after it can be trusted.
var ErrFrame = errors.New("link: malformed frame")

// Frame is one message of the control stream. Exactly one field is set.
type Frame struct {
	Start    *Start       `json:"start,omitempty"`    // runner to guest, first
	Measured *Measurement `json:"measured,omitempty"` // guest to runner, when everything but the agent is in place
	Go       *Go          `json:"go,omitempty"`       // runner to guest: the measurement agrees with the plan
	Started  *Started     `json:"started,omitempty"`  // guest to runner: the agent's program runs
	Signal   *Signal      `json:"signal,omitempty"`   // runner to guest
	Resize   *Size        `json:"resize,omitempty"`   // runner to guest
	Refused  *Refused     `json:"refused,omitempty"`  // guest to runner: traffic that ended inside
	Exit     *Exit        `json:"exit,omitempty"`     // guest to runner, last
	Failure  *Failure     `json:"failure,omitempty"`  // guest to runner: the sandbox could not be put up
	Reset    *Reset       `json:"reset,omitempty"`    // both ways: a connection was broken off
}

// Start tells the guest what to run and how.
type Start struct {
	Version int      `json:"version"`
	Argv    []string `json:"argv"`
	Env     []string `json:"env"`
	Dir     string   `json:"dir"`
	// Claim are directories that are to belong to the agent, made by the engine for root.
	Claim []string `json:"claim,omitempty"`
	UID   int      `json:"uid"`
	GID   int      `json:"gid"`
	TTY   bool     `json:"tty,omitempty"`
	Size  Size     `json:"size,omitzero"`
	// Loopback is where the resolver listens if the engine gives no right to change the network; zero if it does. The guest
	// then listens on the addresses and ports that names are answered with, too.
	Loopback netip.AddrPort `json:"loopback,omitzero"`
	// Lane is what the guest has to say at LaneSocket; empty: there is none. A guest that can't get there does without.
	Lane []byte `json:"lane,omitempty"`
	// Files and Trust are what the sandbox has in FilesDir.
	Files []File `json:"files,omitempty"`
	Trust *Trust `json:"trust,omitempty"`
}

// Go releases the agent.
type Go struct{}

// Started tells that the agent's program has replaced the guest's own code in its process.
type Started struct {
	PID int `json:"pid"` // in the container
}

// Signal asks for a signal to the agent's process group. Number is Linux's, whatever the runner runs on.
type Signal struct {
	Number int `json:"number"`
}

// Size is a terminal's size in character cells.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Refused are packets that were refused without a connection: UDP, ICMP and what else is not TCP. Without a protocol and
// an address it stands for those that nobody could list.
type Refused struct {
	Proto string         `json:"proto"` // "udp", "icmp", or the number that IANA gave the protocol
	Addr  netip.AddrPort `json:"addr"`
	Count uint64         `json:"count"` // since the last report, at least 1
}

// Exit is the end of the agent.
type Exit struct {
	Code   int    `json:"code"`             // exit status, or 128 + signal
	Signal int    `json:"signal,omitempty"` // the signal that ended it, 0 if none
	Error  string `json:"error,omitempty"`  // why the program could not be started (Code is 126 or 127)
	// OOMKills counts processes that the kernel killed for memory in this container, -1 where it cannot be seen.
	OOMKills int64 `json:"oom_kills"`
	// PeakMemory is the container's highest memory use in bytes, CPUMicros its CPU time in microseconds, each -1 where it cannot be seen.
	PeakMemory int64 `json:"peak_memory"`
	CPUMicros  int64 `json:"cpu_micros"`
	// PeakPIDs is the highest number of processes and threads in the container at a time, the guest's included; -1 where it cannot be seen.
	PeakPIDs int64 `json:"peak_pids"`
}

// StepNetwork is the step of a Failure that is about the network.
const StepNetwork = "network"

// Failure says which step of putting up the sandbox failed, and why.
type Failure struct {
	Step   string `json:"step"`
	Reason string `json:"reason"`
}

// WriteFrame writes f as a big-endian 32-bit length and that many bytes of JSON.
func WriteFrame(w io.Writer, f Frame) error { return writeJSON(w, f) }

// ReadFrame reads one control frame. Every error but io.EOF before the first byte means that the stream is unusable.
func ReadFrame(r io.Reader) (Frame, error) {
	var f Frame
	if err := readJSON(r, &f, MaxFrame); err != nil {
		return Frame{}, err
	}
	if n := f.count(); n != 1 {
		return Frame{}, fmt.Errorf("%w: %d messages in one frame", ErrFrame, n)
	}
	// A status beyond a byte would be cut to another by the kernel: 256 to success.
	if e := f.Exit; e != nil && (e.Code < 0 || e.Code > 255 || e.Signal < 0 || e.Signal > maxSignal) {
		return Frame{}, fmt.Errorf("%w: exit status %d, signal %d", ErrFrame, e.Code, e.Signal)
	}
	return f, nil
}

// maxSignal is Linux's highest (signal(7)).
const maxSignal = 64

func (f Frame) count() int {
	n := 0
	for _, set := range []bool{
		f.Start != nil, f.Measured != nil, f.Go != nil, f.Started != nil, f.Signal != nil,
		f.Resize != nil, f.Refused != nil, f.Exit != nil, f.Failure != nil, f.Reset != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

func writeJSON(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	if len(body) > MaxFrame {
		return fmt.Errorf("link: frame of %d bytes exceeds %d", len(body), MaxFrame)
	}
	buf := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	_, err = w.Write(append(buf, body...))
	return err
}

func readJSON(r io.Reader, v any, limit uint32) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > limit {
		return fmt.Errorf("%w: length %d exceeds %d", ErrFrame, n, limit)
	}
	// The buffer grows with what arrives, so that a length alone costs nothing.
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	dec := json.NewDecoder(&body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %v", ErrFrame, err)
	}
	if dec.More() {
		return fmt.Errorf("%w: trailing data", ErrFrame)
	}
	return nil
}
