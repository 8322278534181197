package workspace

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// leaveOut drops what has no place in the commit, and says why.
func (b *branchMaker) leaveOut(ctx context.Context, index *gitCmd, changes []*Change) ([]*Change, error) {
	modules, err := b.gitlinks(ctx, index)
	if err != nil {
		return nil, err
	}
	ignored, err := b.ignored(ctx, changes)
	if err != nil {
		return nil, err
	}
	var kept []*Change
	for _, c := range changes {
		switch {
		case gitNode(c.Old) == nil && gitNode(c.New) == nil: // a directory
		case belowAny(modules, b.user.prefix+c.Path) || belowAny(modules, b.user.prefix+c.source()):
			b.res.Skipped = append(b.res.Skipped, Refusal{c.Path, "inside a submodule"})
		case ignored[c.Path]:
			b.res.Skipped = append(b.res.Skipped, Refusal{c.Path, "ignored by .gitignore"})
		default:
			kept = append(kept, c)
		}
	}
	return kept, nil
}

func belowAny(dirs map[string]bool, p string) bool {
	for d := p; d != "."; d = path.Dir(d) {
		if dirs[d] {
			return true
		}
	}
	return false
}

// gitlinks are the paths of the submodules in the index.
func (b *branchMaker) gitlinks(ctx context.Context, index *gitCmd) (map[string]bool, error) {
	modules := map[string]bool{}
	err := eachEntry(ctx, index, func(mode, _, p string) {
		if mode == "160000" {
			modules[p] = true
		}
	})
	return modules, err
}

// eachEntry goes through an index.
func eachEntry(ctx context.Context, index *gitCmd, each func(mode, id, path string)) error {
	return index.records(ctx, nil, func(record string) error {
		meta, p, ok := strings.Cut(record, "\t")
		fields := strings.Fields(meta)
		if !ok || len(fields) != 3 {
			return fmt.Errorf("git ls-files: unexpected %q", record)
		}
		each(fields[0], fields[1], p)
		return nil
	}, "ls-files", "--stage", "-z")
}

// records hands on what a command prints, cut at NUL bytes.
func (g *gitCmd) records(ctx context.Context, stdin io.Reader, each func(string) error, args ...string) error {
	return g.stream(ctx, stdin, func(r *bufio.Reader) error {
		for {
			record, err := r.ReadString(0)
			if errors.Is(err, io.EOF) && record == "" {
				return nil
			}
			if err != nil {
				return err
			}
			if err := each(strings.TrimSuffix(record, "\x00")); err != nil {
				return err
			}
		}
	}, args...)
}

// stream lets read work on a command's output while it runs. It returns after both have ended.
func (g *gitCmd) stream(ctx context.Context, stdin io.Reader, read func(*bufio.Reader) error, args ...string) error {
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := read(bufio.NewReader(out))
		_ = out.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // git need not go on
		done <- err
	}()
	err := g.pipe(ctx, stdin, in, args...)
	_ = in.Close()
	if readErr := <-done; readErr != nil {
		return readErr
	}
	return err
}

// ignored asks which new files the project's .gitignore names.
func (b *branchMaker) ignored(ctx context.Context, changes []*Change) (map[string]bool, error) {
	found := map[string]bool{}
	if b.cfg.IncludeIgnored {
		return found, nil
	}
	links := map[string]bool{} // git refuses to look below them
	for _, c := range changes {
		if c.Old != nil && c.Old.Type == Symlink {
			links[c.Path] = true
		}
	}
	var ask strings.Builder
	for _, c := range changes {
		if c.Kind == Added && gitNode(c.New) != nil && !belowAny(links, c.Path) {
			ask.WriteString("./" + c.Path + "\x00") // a name may begin with ":", which has a meaning
		}
	}
	if ask.Len() == 0 {
		return found, nil
	}
	git := b.user.git.in(b.cfg.Target, "") // the work tree is found from the directory
	err := git.records(ctx, strings.NewReader(ask.String()), func(p string) error {
		found[strings.TrimPrefix(p, "./")] = true
		return nil
	}, "check-ignore", "--no-index", "-z", "--stdin")
	if isExit(err, 1) { // none
		err = nil
	}
	return found, err
}

// store writes the new contents into the temporary repository and gives the lines for git update-index
// --index-info: first what goes, then what comes.
func (b *branchMaker) store(ctx context.Context, changes []*Change) (string, error) {
	var gone, come strings.Builder
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := b.feed(w, changes, &come)
		_ = w.CloseWithError(err)
		done <- err
	}()
	_, err := b.temp.writer.run(ctx, r, "fast-import", "--quiet", "--done")
	_ = r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if feedErr := <-done; feedErr != nil && !errors.Is(feedErr, io.ErrClosedPipe) {
		return "", feedErr
	}
	if err != nil {
		return "", err
	}
	for _, c := range changes {
		if c.From != "" {
			fmt.Fprintf(&gone, "0 %s\t%s%s\x00", b.user.zero(), b.user.prefix, c.From)
		}
		if gitNode(c.New) == nil {
			fmt.Fprintf(&gone, "0 %s\t%s%s\x00", b.user.zero(), b.user.prefix, c.Path)
		}
	}
	return gone.String() + come.String(), nil
}

// feed writes a git-fast-import(1) stream of nothing but blobs: it knows no paths, so it can apply no filter.
func (b *branchMaker) feed(w io.Writer, changes []*Change, entries *strings.Builder) error {
	out := bufio.NewWriterSize(w, 64<<10)
	for _, c := range changes {
		if gitNode(c.New) == nil {
			continue
		}
		id, err := b.feedOne(out, c)
		if err != nil {
			return fmt.Errorf("%q: %w", c.Path, err)
		}
		fmt.Fprintf(entries, "%s %s\t%s%s\x00", gitMode(c.New), id, b.user.prefix, c.Path)
	}
	out.WriteString("done\n")
	return out.Flush()
}

func (b *branchMaker) feedOne(out *bufio.Writer, c *Change) (id string, err error) {
	var r io.ReadCloser = io.NopCloser(strings.NewReader(c.New.Target))
	size := int64(len(c.New.Target))
	if c.New.Type == File {
		size = c.New.Size
		r, err = openNew(c.Old, c.New, b.blobs, func() (io.ReadCloser, error) { return b.host.open(c.source()) })
		if err != nil {
			return "", err
		}
	}
	defer r.Close()
	h := newGitHash(b.user.format == "sha256", size)
	fmt.Fprintf(out, "blob\ndata %d\n", size)
	n, err := io.Copy(io.MultiWriter(out, h), r)
	if err == nil && n != size {
		err = ErrBlobDamaged
	}
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), out.WriteByte('\n')
}

// findMixed finds the files whose state at the start of the run was not that of the base commit. What git stores in
// another form than the work tree has it (line endings, LFS) counts too: our commit has it as the agent left it.
func (b *branchMaker) findMixed(ctx context.Context, index *gitCmd, changes []*Change) error {
	old := map[string]*Change{}
	for _, c := range changes {
		if c.Old != nil && c.Old.Type == File && c.New != nil {
			old[b.user.prefix+c.source()] = c
		}
	}
	if len(old) == 0 {
		return nil
	}
	var ids strings.Builder
	var order []*Change
	err := eachEntry(ctx, index, func(_, id, p string) {
		if c := old[p]; c != nil {
			ids.WriteString(id + "\n")
			order = append(order, c)
			delete(old, p)
		}
	})
	if err != nil {
		return err
	}
	for _, c := range old { // not in the commit at all
		b.res.Mixed = append(b.res.Mixed, c.Path)
	}
	err = b.temp.git.blobs(ctx, ids.String(), func(i int, r io.Reader) error {
		h := sha256.New()
		_, err := io.Copy(h, r)
		if hex.EncodeToString(h.Sum(nil)) != order[i].Old.SHA256 {
			b.res.Mixed = append(b.res.Mixed, order[i].Path)
		}
		return err
	})
	slices.Sort(b.res.Mixed)
	return err
}

// blobs reads the objects with these ids, one a line, in order.
func (g *gitCmd) blobs(ctx context.Context, ids string, each func(i int, content io.Reader) error) error {
	return g.stream(ctx, strings.NewReader(ids), func(r *bufio.Reader) error {
		for i := range strings.Count(ids, "\n") {
			header, err := r.ReadString('\n')
			if err != nil {
				return err
			}
			var id, kind string
			var size int64
			if _, err := fmt.Sscanf(header, "%s %s %d\n", &id, &kind, &size); err != nil {
				return fmt.Errorf("git cat-file: unexpected %q", header)
			}
			content := io.LimitReader(r, size)
			if err := each(i, content); err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, content); err != nil {
				return err
			}
			if _, err := r.Discard(1); err != nil {
				return err
			}
		}
		return nil
	}, "cat-file", "--batch")
}
