//go:build !docker

package engine

import "github.com/docker/docker/api/types/container"

// Weakened is part of every Spec and empty: nothing that this package puts up can be left out. Tests, which are built
// with the tag docker, have another one to show that each protection is needed.
type Weakened struct{}

func (Weakened) apply(*container.Config, *container.HostConfig) {}
