package runner

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/link"
)

// laneParent is where the lanes' sockets are for the tenth of a second that they exist: in memory, and under a path that tells
// the sandbox's mount table nothing about this host.
const laneParent = "/dev/shm/agent-sandbox-"

// laneDir is a run's directory there.
func laneDir(run string) string { return laneParent + run }

// planLane decides whether connections get a lane beside the attach stream: where the engine is on this kernel and sees this process'
// files, as the overlay has shown. Anywhere else the attach stream carries all.
func (r *run) planLane() {
	r.plan.Network.Lane = r.engine.Facts().Local && r.view.Mode == policy.ModeOverlay && !r.cfg.noLane()
	if r.plan.Network.Lane {
		spec := &r.plan.Container
		spec.Mounts = append(spec.Mounts, engine.Mount{Source: link.LaneSource(laneDir(r.id)), Target: link.LaneDir, ReadOnly: true})
	}
}

// openLane makes the socket that is mounted. What can't be had is done without: nothing rests on it.
func (r *run) openLane() *link.LaneHost {
	if !r.plan.Network.Lane {
		r.withoutLane() // the network may have been planned anew
		return nil
	}
	h, err := link.NewLaneHost(laneDir(r.id))
	if err != nil {
		r.withoutLane()
		return nil
	}
	return h
}

// withoutLane takes the lane out of the plan.
func (r *run) withoutLane() {
	r.plan.Network.Lane = false
	spec := &r.plan.Container
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m engine.Mount) bool { return m.Target == link.LaneDir })
}

// laneless tells whether a sandbox did not start because of its lane: the engine has another view of the files than it seems.
func (r *run) laneless(err error) bool {
	return err != nil && r.plan.Network.Lane && (strings.Contains(err.Error(), link.LaneDir) || strings.Contains(err.Error(), laneDir(r.id)))
}

// takeLane ends the wait for the guest at the socket, which is gone then, and serves the lane if it came. It is an error that
// the socket can't be removed.
func (b *sandbox) takeLane() error {
	if b.host == nil {
		return nil
	}
	lane, err := b.host.Take()
	if lane == nil || err != nil {
		return err
	}
	b.lane = true
	b.link.streams.Go(func() { b.link.acceptLane(lane) })
	return nil
}

// dropLane removes the socket of a sandbox that did not come to life.
func dropLane(h *link.LaneHost) error {
	if h == nil {
		return nil
	}
	lane, err := h.Take()
	if lane != nil {
		err = errors.Join(err, lane.Close())
	}
	return err
}

// acceptLane serves the streams of a lane until it or the session ends.
func (v *server) acceptLane(lane *link.Lane) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	over := make(chan struct{})
	defer close(over)
	v.streams.Go(func() {
		select {
		case <-v.session.Done():
		case <-over:
		}
		_ = lane.Close()
	})
	for {
		stream, err := lane.Accept()
		if err != nil {
			return
		}
		v.slots <- struct{}{}
		v.streams.Go(func() {
			defer func() { <-v.slots }()
			v.serve(ctx, stream)
		})
	}
}
