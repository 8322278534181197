package workspace

import (
	"bufio"
	"compress/zlib"
	"context"
	"crypto/sha1" //nolint:gosec // git's object ids, not a protection
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// copyObjects takes the agent's new objects into the temporary repository: loose ones whose content has the id
// that they are named by, and packs, for which git makes a new index from their content. A name is only ever
// one of the two forms, so nothing of info/ and no other file comes along.
func (f *commitFetcher) copyObjects(ctx context.Context) error {
	for i := range f.cs.Changes {
		c := &f.cs.Changes[i]
		name, ok := strings.CutPrefix(c.Path, ".git/objects/")
		if !ok || c.New == nil || c.New.Type != File {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		switch {
		case f.isLoose(name):
			err = f.copyLoose(c, name)
		case f.isPack(name):
			err = f.copyPack(ctx, c, name)
		}
		if err != nil {
			return fmt.Errorf("object %s: %w", name, err)
		}
	}
	return nil
}

func (f *commitFetcher) isLoose(name string) bool {
	dir, rest, ok := strings.Cut(name, "/")
	return ok && len(dir) == 2 && f.user.validID(dir+rest)
}

func (f *commitFetcher) isPack(name string) bool {
	id, ok := strings.CutPrefix(name, "pack/pack-")
	id, isPack := strings.CutSuffix(id, ".pack")
	return ok && isPack && f.user.validID(id)
}

// copyLoose copies an object and checks its id on the way: git itself believes the name of a loose object until fsck,
// and an object under a wrong name would show us another history than it gives the user.
func (f *commitFetcher) copyLoose(c *Change, name string) error {
	if err := os.MkdirAll(filepath.Join(f.temp.path, "objects", name[:2]), 0o700); err != nil {
		return err
	}
	r, err := f.openChange(c)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := f.temp.write("objects/"+name, r); err != nil {
		return err
	}
	return f.checkLoose(name)
}

func (f *commitFetcher) checkLoose(name string) error {
	file, err := os.Open(filepath.Join(f.temp.path, "objects", filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	defer file.Close()
	z, err := zlib.NewReader(bufio.NewReader(file))
	if err != nil {
		return err
	}
	var h hash.Hash = sha1.New()
	if f.user.format == "sha256" {
		h = sha256.New()
	}
	n, err := io.Copy(h, io.LimitReader(z, f.inflatable+1))
	if err != nil {
		return err
	}
	if f.inflatable -= n; f.inflatable < 0 {
		return fmt.Errorf("the objects are larger than %d bytes", int64(maxInflated))
	}
	if hex.EncodeToString(h.Sum(nil)) != strings.ReplaceAll(name, "/", "") {
		return errors.New("its content is not that of its name")
	}
	return nil
}

// copyPack hands a pack to git, which reads every object in it and names it by its content.
func (f *commitFetcher) copyPack(ctx context.Context, c *Change, name string) error {
	r, err := f.openChange(c)
	if err != nil {
		return err
	}
	defer r.Close()
	at := "objects/" + name
	if err := f.temp.write(at, r); err != nil {
		return err
	}
	_, err = f.temp.git.run(ctx, nil, "index-pack", filepath.Join(f.temp.path, filepath.FromSlash(at)))
	return err
}
