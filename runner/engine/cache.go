package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/volume"
)

const (
	// cacheVolume begins the names of the volumes that keep a tool's cache from one run to the next.
	cacheVolume = "agent-sandbox-cache-"
	// What a cache's volume is labelled with besides Label. All have to be there for it to be one of ours.
	cacheKind    = "agent-sandbox.cache"
	cacheOwner   = "agent-sandbox.cache.owner"
	cacheProject = "agent-sandbox.cache.project"
)

// ErrForeignVolume tells that a volume with the name of a cache is none that this program made for it.
var ErrForeignVolume = errors.New("the volume is not one of agent-sandbox")

// ErrVolumeUsed tells that a volume can't be removed since a container has it.
var ErrVolumeUsed = errors.New("a container uses the volume")

// Cache is a volume that keeps a tool's cache between the runs of a project.
type Cache struct {
	Volume  string `json:"volume"`  // its name, of CacheName
	Kind    string `json:"kind"`    // npm, go, pip or cargo
	Owner   string `json:"owner"`   // whose it is: an id of the state that its runs are recorded in, or of a repository
	Project string `json:"project"` // for people
}

// CacheName is the name of the volume of a kind with this key.
func CacheName(kind, key string) string { return cacheVolume + kind + "-" + key }

// labels are those of the volume, whichever run is the first to use it.
func (c Cache) labels() map[string]string {
	return map[string]string{cacheKind: c.Kind, cacheOwner: c.Owner, cacheProject: c.Project}
}

// cacheOf reads a volume's labels. A volume of anything but the local driver's own directory is no cache: what it has is not ours.
func cacheOf(v volume.Volume) (Cache, bool) {
	c := Cache{Volume: v.Name, Kind: v.Labels[cacheKind], Owner: v.Labels[cacheOwner], Project: v.Labels[cacheProject]}
	ours := strings.HasPrefix(v.Name, cacheVolume+c.Kind+"-") && c.Kind != "" && c.Owner != "" && v.Labels[Label] != "" &&
		v.Driver == "local" && len(v.Options) == 0
	return c, ours
}

// HasCache tells whether the engine has the cache's volume; the error wraps ErrForeignVolume if the one of its name is another's. A
// container that is created with the cache's Mount makes the volume.
func (e *Engine) HasCache(ctx context.Context, c Cache) (bool, error) {
	v, err := e.api.VolumeInspect(ctx, c.Volume)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for cache: %w", err)
	}
	if have, ours := cacheOf(v); !ours || have.Kind != c.Kind || have.Owner != c.Owner {
		return false, fmt.Errorf("%w: %s", ErrForeignVolume, c.Volume)
	}
	return true, nil
}

// Mount is the cache in a container.
func (c Cache) Mount(target string) Mount {
	return Mount{Source: c.Volume, Target: target, Volume: true, NoCopy: true, labels: c.labels()}
}

// CacheState is a cache as the engine has it.
type CacheState struct {
	Cache
	Bytes int64 `json:"bytes"` // -1: the engine does not tell
	Used  bool  `json:"used"`  // by a container, as far as the engine tells
}

// Caches lists the volumes that keep caches, whoever's runs made them. How large they are takes the engine a look at every volume that it has.
func (e *Engine) Caches(ctx context.Context, measure bool) ([]CacheState, error) {
	list, err := e.api.VolumeList(ctx, volume.ListOptions{Filters: filters.NewArgs(filters.Arg("label", cacheKind))})
	if err != nil {
		return nil, fmt.Errorf("list caches: %w", err)
	}
	usage := map[string]*volume.UsageData{}
	if measure {
		// An engine that is at it for somebody else refuses; the list is worth having all the same.
		all, _ := e.api.DiskUsage(ctx, types.DiskUsageOptions{Types: []types.DiskUsageObject{types.VolumeObject}})
		for _, v := range all.Volumes {
			usage[v.Name] = v.UsageData
		}
	}
	var states []CacheState
	for _, v := range list.Volumes {
		c, ours := cacheOf(*v)
		if !ours {
			continue
		}
		s := CacheState{Cache: c, Bytes: -1}
		if u := usage[v.Name]; u != nil {
			s.Bytes, s.Used = u.Size, u.RefCount > 0
		}
		states = append(states, s)
	}
	return states, nil
}

// RemoveCache removes a cache's volume. The error wraps ErrVolumeUsed if a container has it, and ErrForeignVolume if it is no cache of ours. One
// that is gone is no error.
func (e *Engine) RemoveCache(ctx context.Context, c Cache) error {
	// The list may be old: who has the name now is what counts.
	if there, err := e.HasCache(ctx, c); err != nil || !there {
		return err
	}
	err := e.api.VolumeRemove(ctx, c.Volume, false)
	switch {
	case errdefs.IsNotFound(err):
		return nil
	case errdefs.IsConflict(err):
		return fmt.Errorf("remove %s: %w", c.Volume, ErrVolumeUsed)
	case err != nil:
		return fmt.Errorf("remove %s: %w", c.Volume, err)
	}
	return nil
}

// withRun adds the label that every object of ours carries.
func withRun(labels map[string]string, run string) map[string]string {
	all := map[string]string{Label: run}
	maps.Copy(all, labels)
	return all
}
