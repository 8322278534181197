package workspace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// agentTip finds the agent's last commit from its HEAD and refs, without git: "" when that is unchanged. What
// the agent left alone is as it was when the run started, not as it is on the host now.
func (f *commitFetcher) agentTip() (string, error) {
	ref := f.cfg.Ref
	if ref == "" {
		head, changed, err := f.agentFile(".git/HEAD", maxRefFile)
		if err != nil {
			return "", err
		}
		if ref = f.cs.Head; changed {
			if ref, err = f.parseRef(head); err != nil {
				return "", fmt.Errorf("the agent's HEAD: %w", err)
			}
		}
	}
	if ref == "" || f.user.validID(ref) { // detached: at the start, or by the agent
		return ref, nil
	}
	if !validRef(ref) {
		return "", fmt.Errorf("the agent's HEAD names %q, which is no branch", ref)
	}
	return f.agentRef(ref)
}

// agentRef reads one ref of the agent: its own file, else packed-refs.
func (f *commitFetcher) agentRef(ref string) (string, error) {
	loose, changed, err := f.agentFile(".git/"+ref, maxRefFile)
	if err != nil {
		return "", err
	}
	if changed && loose != nil {
		id := strings.TrimSpace(string(loose))
		if !f.user.validID(id) {
			return "", fmt.Errorf("the agent's %s holds %q, no commit id", ref, id)
		}
		return id, nil
	}
	if _, err := f.host.lstat(".git/" + ref); err == nil && !changed {
		return "", nil // its own file wins, and is as it was
	}
	packed, changed, err := f.agentFile(".git/packed-refs", maxPacked)
	if err != nil {
		return "", err
	}
	if changed {
		return f.packedRef(packed, ref), nil
	}
	return "", nil
}

// parseRef reads a HEAD file: a symbolic ref, or an id.
func (f *commitFetcher) parseRef(data []byte) (string, error) {
	s := strings.TrimRight(string(data), "\n")
	if name, ok := strings.CutPrefix(s, "ref: "); ok {
		return strings.TrimSpace(name), nil
	}
	if f.user.validID(s) {
		return s, nil
	}
	return "", fmt.Errorf("%q is neither a branch nor a commit id", s)
}

// packedRef finds a ref in the text of a packed-refs file, "" when it is not in there.
func (f *commitFetcher) packedRef(data []byte, ref string) string {
	for line := range bytes.Lines(data) {
		id, name, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		if ok && name == ref && f.user.validID(id) {
			return id
		}
	}
	return ""
}

// validRef is stricter than git-check-ref-format(1): plain names below refs/heads/.
func validRef(ref string) bool {
	name, ok := strings.CutPrefix(ref, "refs/heads/")
	if !ok || checkPath(name) != nil || len(name) > maxName {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) })
}

// agentFile reads a small file as the agent left it. changed is false when the change set does not have it;
// data is nil when the agent removed it.
func (f *commitFetcher) agentFile(p string, limit int64) (data []byte, changed bool, err error) {
	c := f.cs.Find(p)
	if c == nil {
		return nil, false, nil
	}
	if c.New == nil {
		return nil, true, nil
	}
	if c.New.Type != File || c.New.Size > limit {
		return nil, true, fmt.Errorf("%s is a %s of %d bytes", p, c.New.Type, c.New.Size)
	}
	r, err := f.openChange(c)
	if err != nil {
		return nil, true, err
	}
	defer r.Close()
	data, err = io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && data == nil {
		data = []byte{}
	}
	return data, true, err
}

func (f *commitFetcher) openChange(c *Change) (io.ReadCloser, error) {
	r, err := openNew(c.Old, c.New, f.blobs, func() (io.ReadCloser, error) { return f.host.open(c.source()) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q: %w", c.Path, ErrBlobDamaged)
	}
	return r, err
}
