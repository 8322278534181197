package workspace

import (
	"bytes"
	"fmt"
	"io"
)

// patcher writes sections while there is room.
type patcher struct {
	w    io.Writer
	cfg  PatchConfig
	left int64
}

const (
	patchBatch  = 64       // changes that are prepared at once
	aheadOfTurn = 64 << 10 // bytes of a file that is read before its turn: a batch of them is 4 MiB
)

// prepared is a section whose contents are at hand.
type prepared struct {
	section
	change *Change

	done bool
	body body
	text []byte // all of it, if it was written already
	omit string
	err  error
}

// ahead makes the sections of some changes. New files are prepared; what needs the host's file waits for its turn.
func (p *patcher) ahead(changes []Change) []*prepared {
	var all []*prepared
	var text bytes.Buffer
	for i := range changes {
		changes[i].Omitted = ""
		for _, s := range sections(&changes[i]) {
			one := &prepared{section: s, change: &changes[i]}
			all = append(all, one)
			if s.old != nil || s.new.Size > aheadOfTurn {
				continue
			}
			one.done = true
			p.prepare(one)
			if one.err != nil || one.omit != "" {
				continue
			}
			start := text.Len()
			one.err = one.body.write(&text)
			one.text, one.body = text.Bytes()[start:], body{}
		}
	}
	return all
}

// batch writes the sections of some changes, and reports whether one was left out.
func (p *patcher) batch(all []*prepared) (incomplete bool, err error) {
	for _, one := range all {
		if !one.done {
			p.prepare(one)
		}
		omitted, err := p.write(one)
		if err != nil {
			return incomplete, fmt.Errorf("patch of %q: %w", one.change.Path, err)
		}
		if omitted != "" && one.change.Omitted == "" {
			one.change.Omitted, incomplete = omitted, true
		}
		*one = prepared{} // its contents
	}
	return incomplete, nil
}

// prepare reads both sides and compares them.
func (p *patcher) prepare(one *prepared) {
	s := one.section
	old, err := p.load(s.old, func() (io.ReadCloser, error) {
		if p.cfg.Blobs.Has(s.old.SHA256) {
			return p.cfg.Blobs.Open(s.old.SHA256)
		}
		return p.cfg.Old(s.from)
	})
	if err != nil {
		one.omit = "the host's file is not what the run started from"
		return
	}
	new, err := p.load(s.new, func() (io.ReadCloser, error) {
		return openNew(s.old, s.new, p.cfg.Blobs, func() (io.ReadCloser, error) { return p.cfg.Old(s.from) })
	})
	if err != nil {
		one.err = err // our own store is damaged: that is no matter of one file
		return
	}
	one.body = body{section: s, oldSide: old, newSide: new}
	one.body.compare()
}

// write writes one block, or a comment in its place and the reason.
func (p *patcher) write(one *prepared) (omitted string, err error) {
	switch {
	case one.err != nil:
		return "", one.err
	case one.omit != "":
		return p.omit(one.section, one.omit)
	}
	size := int64(len(one.text))
	if !one.done {
		size = one.body.size()
	}
	if size > p.left {
		return p.omit(one.section, fmt.Sprintf("the patch would be longer than %d bytes", p.cfg.MaxBytes))
	}
	p.left -= size
	if one.done {
		_, err = p.w.Write(one.text)
		return "", err
	}
	return "", one.body.write(p.w)
}
