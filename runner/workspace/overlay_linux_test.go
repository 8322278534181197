package workspace

import (
	"net"
	"path/filepath"
	"testing"
)

func TestSwapMappings(t *testing.T) {
	for _, tt := range [][2]int{{0, 1000}, {1000, 0}, {0, 1}, {5, 6}, {1000, 1000}, {0, 0}, {33, 100000}} {
		seen := make(map[int]int)
		covered := 0
		for _, r := range swapMappings(tt[0], tt[1]) {
			if r.Size <= 0 || r.ContainerID < 0 || r.ContainerID+r.Size > mappedIDs {
				t.Errorf("%v: range %+v", tt, r)
			}
			covered += r.Size
			for _, id := range []int{0, 1, 5, 6, 33, 999, 1000, 1001, 100000, mappedIDs - 1} {
				if id >= r.ContainerID && id < r.ContainerID+r.Size {
					if _, twice := seen[id]; twice {
						t.Errorf("%v: %d is mapped twice", tt, id)
					}
					seen[id] = r.HostID + id - r.ContainerID
				}
			}
		}
		if covered != mappedIDs {
			t.Errorf("%v: %d ids are mapped, want all %d", tt, covered, mappedIDs)
		}
		s := idSwap{a: IDs{tt[0], tt[0]}, b: IDs{tt[1], tt[1]}}
		for id, got := range seen {
			if want := s.of(IDs{id, id}); got != want.UID || got != want.GID {
				t.Errorf("%v: %d is mapped to %d, and idSwap says %v", tt, id, got, want)
			}
		}
	}
}

func TestNoSwapChangesNothing(t *testing.T) {
	for _, id := range []IDs{{0, 0}, {1000, 100}} {
		if got := (idSwap{}).of(id); got != id {
			t.Errorf("%v became %v", id, got)
		}
	}
}

func TestSharesPIDs(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	if SharesPIDs(socket) {
		t.Error("proved of a socket that does not exist")
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !SharesPIDs(socket) {
		t.Error("not proved of our own process")
	}
}

func TestKernelAtLeast(t *testing.T) {
	if !kernelAtLeast(2, 6) || !kernelAtLeast(1, 99) || kernelAtLeast(1000, 0) {
		t.Error("kernelAtLeast misreads the version of this kernel")
	}
}
