//go:build !linux

package link

import "errors"

// LaneHost is nothing where engines have a kernel of their own.
type LaneHost struct{ Nonce []byte }

// NewLaneHost always fails here.
func NewLaneHost(string) (*LaneHost, error) { return nil, errors.ErrUnsupported }

// Take is never asked for.
func (*LaneHost) Take() (*Lane, error) { return nil, errors.ErrUnsupported }

// Accept is never asked for.
func (*Lane) Accept() (*Stream, error) { return nil, errNoLane }

// Begin is never asked for.
func (*Lane) Begin() (*Stream, error) { return nil, errNoLane }
