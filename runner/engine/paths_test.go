package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
)

const (
	ownID = "b5c1d0f39a3d7f1e4c52a7c0f9be01fa2d8aa8d7a4e1c0a1c1f4ad0e12345678"

	// mountinfo is that of a container action: what the engine mounts for every container, a bind, one in it, and a volume.
	mountinfo = `118 98 0:51 / / rw,relatime - overlay overlay rw
121 118 0:55 / /proc rw - proc proc rw
130 118 254:0 /var/lib/docker/containers/` + ownID + `/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw
131 118 254:0 /home/runner/work/my\040shop/my\040shop /github/workspace rw,relatime - ext4 /dev/vda rw
132 131 254:0 /cache /github/workspace/cache rw,relatime - ext4 /dev/vdb rw
133 118 254:0 /var/lib/docker/volumes/state-4711/_data /var/lib/agent-sandbox rw,relatime - ext4 /dev/vda rw
`
)

func TestParseMounts(t *testing.T) {
	own := parseMounts(mountinfo)
	for path, want := range map[string]string{
		"/github/workspace": "/home/runner/work/my shop/my shop", "/github/workspace/dir": "/home/runner/work/my shop/my shop",
		"/github/workspace/cache/x": "/cache", "/github/workspaces": "/", "/var/lib/agent-sandbox/runs": "/var/lib/docker/volumes/state-4711/_data", "/tmp": "/",
	} {
		if got := holding(own, path); got.root != want {
			t.Errorf("%s is on %q, want %q", path, got.root, want)
		}
	}
	// What was mounted last hides what was there.
	over := parseMounts(mountinfo + "140 131 0:60 / /github/workspace rw - tmpfs none rw\n")
	if got := holding(over, "/github/workspace/dir"); got.root != "/" || got.point != "/github/workspace" {
		t.Errorf("a mount over another: %+v", got)
	}
	if got := parseMounts("too few\n\n"); len(got) > 0 {
		t.Errorf("nonsense gave %v", got)
	}
}

func TestContainerIDs(t *testing.T) {
	own := parseMounts(mountinfo)
	for hostname, want := range map[string][]string{
		"b5c1d0f39a3d\n": {"b5c1d0f39a3d", ownID}, "runner-host": {ownID}, "": {ownID}, "b5c1d0f39a3d --x": {ownID},
	} {
		if got := containerIDs(hostname, own); !slices.Equal(got, want) {
			t.Errorf("containerIDs(%q) = %v, want %v", hostname, got, want)
		}
	}
	// A machine with an engine has such files too, but not as its own host name.
	if got := containerIDs("laptop", parseMounts(strings.Replace(mountinfo, " /etc/hostname ", " /mnt ", 1))); len(got) > 0 {
		t.Errorf("outside of a container: %v", got)
	}
}

func TestCandidate(t *testing.T) {
	own := parseMounts(mountinfo)
	mounts := []container.MountPoint{
		{Type: mount.TypeBind, Source: "/home/runner/work/my shop/my shop", Destination: "/github/workspace"},
		{Type: mount.TypeVolume, Name: "state-4711", Source: "/var/lib/docker/volumes/state-4711/_data", Destination: "/var/lib/agent-sandbox/"},
		{Type: mount.TypeTmpfs, Destination: "/run"},
	}
	for dir, want := range map[string]string{
		"/github/workspace": "/home/runner/work/my shop/my shop", "/github/workspace/a/b": "/home/runner/work/my shop/my shop/a/b",
		"/var/lib/agent-sandbox/runs": "/var/lib/docker/volumes/state-4711/_data/runs",
	} {
		if got, err := (*Engine)(nil).candidate(t.Context(), own, mounts, dir); got != want || err != nil {
			t.Errorf("candidate(%s) = %q, %v, want %q", dir, got, err, want)
		}
	}
	// The container's own layer, and a mount that the engine does not know of.
	for _, dir := range []string{"/tmp/x", "/github/workspace/cache"} {
		_, err := (*Engine)(nil).candidate(t.Context(), own, mounts, dir)
		if _, ok := errors.AsType[*ApartError](err); !ok {
			t.Errorf("candidate(%s): %v, want an ApartError", dir, err)
		}
	}
}

func TestPathsKnowWhatWasProven(t *testing.T) {
	p := Paths{known: map[string]string{"/github/workspace": "/home/runner/work"}}
	for path, want := range map[string]string{"/github/workspace": "/home/runner/work", "/github/workspace/a": "/home/runner/work/a", "/github/workspace2": "", "/github": "", "/": ""} {
		if got, ok := p.Of(path); got != want || ok != (want != "") {
			t.Errorf("Of(%q) = %q, %v", path, got, ok)
		}
	}
	if _, ok := (Paths{}).Of("/"); ok {
		t.Error("the zero value knows a path")
	}
}
