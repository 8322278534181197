//go:build !docker

package manifest

// Weakened is part of every Input and empty: no precaution with what comes from inside can be left out. Tests, which are built
// with the tag docker, have another one to show that each is needed.
type Weakened struct{}

func (Weakened) raw() bool { return false }

func (Weakened) long() bool { return false }
