package runs

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// Errors that a caller tests for with errors.Is.
var (
	// ErrNotFound: no run has that id or prefix, or the run lacks that file.
	ErrNotFound = errors.New("not found")
	// ErrRunning: the run, or another command on it, is still at work.
	ErrRunning = errors.New("the run is in use by another process")
	// ErrBusy: another process holds the state directory.
	ErrBusy = errors.New("the state directory is locked by another process")
)

// AmbiguousError is a prefix of more than one run.
type AmbiguousError struct {
	Prefix     string
	Candidates []ID // the newest, at most 10
	Total      int
}

// Error lists the candidates.
func (e *AmbiguousError) Error() string {
	ids := make([]string, len(e.Candidates))
	for i, id := range e.Candidates {
		ids[i] = string(id)
	}
	more := ""
	if e.Total > len(ids) {
		more = fmt.Sprintf(" and %d more", e.Total-len(ids))
	}
	return fmt.Sprintf("run %q is ambiguous: %s%s", e.Prefix, strings.Join(ids, ", "), more)
}

// WriteError is a file of a run that could not be written. Its text names the file and the mend.
type WriteError struct {
	Path string
	Err  error
}

// Error says what, where, why, and what to do.
func (e *WriteError) Error() string {
	text := fmt.Sprintf("write %s: %v", e.Path, e.Err)
	if mend := e.Mend(); mend != "" {
		text += " (" + mend + ")"
	}
	return text
}

// Mend is what the user can do about it; empty when we don't know.
func (e *WriteError) Mend() string {
	switch {
	case diskFull(e.Err):
		return "free some space there: `agent-sandbox discard RUN` removes a run, `agent-sandbox doctor --clean` what dead runs left"
	case errors.Is(e.Err, fs.ErrPermission), readOnly(e.Err):
		return "make the directory writable, or set XDG_STATE_HOME to another one"
	}
	return ""
}

// Unwrap gives the cause.
func (e *WriteError) Unwrap() error { return e.Err }

// DiskFull tells whether err says that a disk is full, or what its user may have of it.
func DiskFull(err error) bool { return diskFull(err) }

// writeError drops the inner path, which is relative to a directory that the user does not see.
func writeError(path string, err error) error {
	if err == nil {
		return nil
	}
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err
	}
	return &WriteError{Path: path, Err: err}
}
