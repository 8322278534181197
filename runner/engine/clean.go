package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/volume"
)

// Leftover is an object of ours in the engine.
type Leftover struct {
	Kind string `json:"kind"` // "container" or "volume"
	ID   string `json:"id"`
	Run  string `json:"run"`
}

// Leftovers lists the containers and volumes that carry our label, whichever run made them, but for caches: they are there to stay.
func (e *Engine) Leftovers(ctx context.Context) ([]Leftover, error) { return e.leftovers(ctx, Label) }

func (e *Engine) leftovers(ctx context.Context, labelled string) ([]Leftover, error) {
	label := filters.NewArgs(filters.Arg("label", labelled))
	containers, err := e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: label})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	volumes, err := e.api.VolumeList(ctx, volume.ListOptions{Filters: label})
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var all []Leftover
	for _, c := range containers {
		all = append(all, Leftover{"container", c.ID, c.Labels[Label]})
	}
	for _, v := range volumes.Volumes {
		if strings.HasPrefix(v.Name, cacheVolume) {
			continue
		}
		all = append(all, Leftover{"volume", v.Name, v.Labels[Label]})
	}
	return all, nil
}

// Sweep removes the containers and volumes of one run, and returns how many it found. The guest's volumes stay: they
// are for every run. So do caches.
func (e *Engine) Sweep(ctx context.Context, run string) (found int, err error) {
	all, err := e.leftovers(ctx, Label+"="+run)
	for _, l := range all {
		if !strings.HasPrefix(l.ID, guestVolume) {
			found++
			err = errors.Join(err, e.RemoveLeftover(ctx, l))
		}
	}
	return found, err
}

// RemoveLeftover removes an object. One that is gone is no error; a volume in use stays, and is one.
func (e *Engine) RemoveLeftover(ctx context.Context, l Leftover) error {
	var err error
	switch l.Kind {
	case "container":
		return (&Container{engine: e, ID: l.ID}).Remove(ctx)
	case "volume":
		err = e.api.VolumeRemove(ctx, l.ID, false)
	default:
		err = errors.New("unknown kind of object")
	}
	if IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s %s: %w", l.Kind, l.ID, err)
	}
	return nil
}
