package workspace

import (
	"bytes"
	"sync"
)

const (
	maxRecent     = 8 << 20  // bytes of all
	maxRecentFile = 64 << 10 // bytes of one
)

// recent holds small contents that were read for their digests: what the patch has of them, and where a secret is in them, needs no
// second look at the disk. Which ones fit makes no difference to what is found.
type recent struct {
	mu       sync.Mutex // guards what follows
	bytes    int
	contents map[string][]byte // by digest
}

// add keeps a copy, if there is room for it.
func (r *recent) add(sum string, content []byte) {
	if r == nil || len(content) > maxRecentFile {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.contents[sum] != nil || r.bytes+len(content) > maxRecent {
		return
	}
	if r.contents == nil {
		r.contents = make(map[string][]byte)
	}
	r.bytes += len(content)
	r.contents[sum] = bytes.Clone(content)
}

// of returns nil for what is not there.
func (r *recent) of(sum string) []byte {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.contents[sum]
}
