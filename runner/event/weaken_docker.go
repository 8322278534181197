//go:build docker

package event

import "math"

// ListAll lifts the bound on what is listed. It exists only in builds with the tag docker, so that the escape suite can show what the
// bound is good for.
func (r *Refusals) ListAll() { r.most = math.MaxInt }
