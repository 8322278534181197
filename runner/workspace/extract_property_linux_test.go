package workspace

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
)

// The modes that need no mounts, as TestChangeSetsAgreeWithAPlainCopy has it for all.
func TestBindAndCopyTellWhatHappened(t *testing.T) {
	for seed := range uint64(15) {
		for _, mode := range []policy.WorkspaceMode{policy.ModeBind, policy.ModeCopy} {
			t.Run(fmt.Sprintf("%s/%d", mode, seed), func(t *testing.T) { tell(t, mode, seed) })
		}
	}
}

func tell(t *testing.T, mode policy.WorkspaceMode, seed uint64) {
	project := t.TempDir()
	newActor(t, rand.New(rand.NewPCG(seed, 10)), project).build()
	before := readTree(t, project)
	v := prepare(t, Config{Project: project, Mode: mode, UID: os.Geteuid(), GID: os.Getegid(), Engine: Engine{Local: true}})
	if _, err := v.Hide(t.Context()); err != nil {
		t.Fatal(err)
	}
	ops := newActor(t, rand.New(rand.NewPCG(seed, 11)), project)
	var from Sources
	if mode == policy.ModeCopy {
		ops.dir = filepath.Join(t.TempDir(), "w")
		untar(t, bytes.NewReader(pack(t, v)), ops.dir)
	}
	ops.act(60)
	if mode == policy.ModeCopy {
		from.Tar = tarOf(t, ops.dir)
	}
	cs, err := v.Extract(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	if err := cs.check(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readTree(t, ops.dir), reference(t, v, cs, before)); diff != "" {
		t.Errorf("project + change set is not what the agent had (-agent +applied):\n%s\n%s", diff, describe(cs))
	}
}

// untar unpacks what Pack wrote.
func untar(t *testing.T, archive io.Reader, dir string) {
	t.Helper()
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(p, h.FileInfo().Mode().Perm())
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, p)
		case tar.TypeLink:
			err = os.Link(filepath.Join(dir, h.Linkname), p)
		default:
			var data []byte
			if data, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(p, data, h.FileInfo().Mode().Perm())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// tarOf packs a directory as an engine does: itself first, hard links as separate files.
func tarOf(t *testing.T, dir string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		target, _ := os.Readlink(p)
		h, err := tar.FileInfoHeader(info, target)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(filepath.Dir(dir), p)
		if err != nil {
			return err
		}
		if h.Name, h.Format = rel, tar.FormatPAX; info.IsDir() {
			h.Name += "/"
		}
		if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &b
}
