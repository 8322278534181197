package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/org/agent-sandbox/policy"
)

// Disk bounds what the agent may take of the host's disk.
type Disk struct {
	// Limit is for what the agent wrote in mode overlay, in bytes. What it deleted and still holds open is not counted
	// there; the reserve is kept from that as well.
	Limit int64

	// Also names further directories on whose file systems the agent's files lie: the engine's, in mode copy.
	Also []string
}

// DiskError says why the disk needs the agent to stop.
type DiskError struct{ Reason string }

func (e *DiskError) Error() string { return e.Reason }

const (
	// diskInterval is short, since fallocate(2) takes any amount of space at once. A look costs microseconds.
	diskInterval = 200 * time.Millisecond
	// walkShare is how much longer than a walk over upper/ the pause after it is: at most 5 % of a processor.
	walkShare = 20
	// minWalkPause is the pause after a walk that took no time.
	minWalkPause = time.Second
)

// reserveOf is what must stay free of a file system, in bytes.
func reserveOf(size int64) int64 { return min(max(size/50, 1<<30), 5<<30) }

// inodeReserveOf is the same for its files; 0 where it has no such limit.
func inodeReserveOf(count int64) int64 { return min(count/50, 100_000) }

// space is what a file system has and has free.
type space struct {
	size, free             int64 // bytes
	inodeCount, inodesFree int64 // 0 where the file system has no such limit
}

// Free is how many bytes the file system of a directory has free for this process.
func Free(dir string) (int64, error) {
	s, err := spaceOf(dir)
	return s.free, err
}

// GuardDisk watches the disk from now on until ctx ends, and yields an error, a *DiskError, once it takes the agent's
// end to keep the host from running out of space: file systems are never filled to the end, however many processes write how
// fast. A disk that is nearly full at the start may still lose half of what is left.
func (v *View) GuardDisk(ctx context.Context, d Disk) <-chan error {
	g := &diskGuard{limit: d.Limit, upper: v.Upper()}
	for _, dir := range append([]string{v.cfg.StateDir, v.cfg.Project}, d.Also...) {
		if start, err := spaceOf(dir); err == nil {
			g.watched = append(g.watched, watched{
				dir: dir, reserve: min(reserveOf(start.size), start.free/2), inodeReserve: min(inodeReserveOf(start.inodeCount), start.inodesFree/2),
			})
		}
	}
	full := make(chan error, 1)
	go func() {
		if err := g.run(ctx); err != nil {
			full <- err
		}
	}()
	return full
}

type diskGuard struct {
	limit    int64
	upper    string // "" where there is none
	watched  []watched
	nextWalk time.Time
}

// watched is a directory whose file system is looked at.
type watched struct {
	dir                   string
	reserve, inodeReserve int64
}

func (g *diskGuard) run(ctx context.Context) error {
	tick := time.NewTicker(diskInterval)
	defer tick.Stop()
	for {
		if err := g.look(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (g *diskGuard) look(ctx context.Context) error {
	for _, w := range g.watched {
		now, err := spaceOf(w.dir)
		if err != nil {
			continue // a directory that is gone has other consequences
		}
		if now.free < w.reserve {
			return &DiskError{fmt.Sprintf("the disk of %s has only %s left, less than the reserve of %s", w.dir, wholeMiB(now.free), wholeMiB(w.reserve))}
		}
		if now.inodesFree < w.inodeReserve {
			return &DiskError{fmt.Sprintf("the disk of %s has room for only %d more files", w.dir, now.inodesFree)}
		}
	}
	if g.upper == "" || time.Now().Before(g.nextWalk) {
		return nil
	}
	start := time.Now()
	used := g.used(ctx)
	g.nextWalk = time.Now().Add(max(minWalkPause, walkShare*time.Since(start)))
	if used > g.limit {
		return &DiskError{fmt.Sprintf("the changes take more than the %s of disk that resources.disk allows", policy.Bytes(g.limit))}
	}
	return nil
}

// wholeMiB prints a size for people.
func wholeMiB(n int64) string { return (policy.Bytes(n) &^ (policy.MiB - 1)).String() }

// used adds up what upper/ takes, as far as it is needed to know that it is too much. What the agent hides from a runner
// with its own uid, by taking away the permissions of a directory, is missing in it: the reserve is kept from that.
func (g *diskGuard) used(ctx context.Context) (sum int64) {
	root, err := os.OpenRoot(g.upper)
	if err != nil {
		return 0
	}
	defer root.Close()
	_ = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if info, err := d.Info(); err == nil {
			sum += allocated(info)
		}
		if sum > g.limit {
			return errEnough
		}
		return nil
	})
	return sum
}

var errEnough = errors.New("enough")
