//go:build !linux

package splice

import (
	"errors"
	"syscall"
)

// Pipes has none here.
type Pipes struct{}

// New makes Pipes that have none.
func New(int) *Pipes { return &Pipes{} }

// Trim has nothing to close.
func (*Pipes) Trim() {}

// Load is never made here.
type Load struct{}

// Take never takes anything.
func (*Pipes) Take(syscall.RawConn) *Load { return nil }

// Len is never asked for.
func (*Load) Len() int { return 0 }

// Send is never asked for.
func (*Load) Send(syscall.RawConn, int) (int, error) { return 0, errors.ErrUnsupported }

// Release is never asked for.
func (*Load) Release() {}
