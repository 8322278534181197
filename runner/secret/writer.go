package secret

import (
	"io"
	"sync"
	"time"
)

const (
	// Shown is how many characters of what may become a secret are passed on when nothing follows for a while. A prompt may end in
	// them; of a secret they are little more than the beginning that all of its kind have.
	Shown = 8
	// idle is that while: longer than a program takes between two writes of one text, and nothing for who waits at a terminal.
	idle = 50 * time.Millisecond
)

// Writer replaces the secrets of a [Set] in a stream, however it is cut into pieces. It passes on at once what can't belong to a secret.
// A tail that is the beginning of one is held back until what follows says more: then it is passed on, or replaced together
// with the rest. Up to Shown characters of it are passed on after a pause, so that a prompt is not held back, and if they
// turn out to be a secret's all the same, what follows them is replaced. Close replaces a longer tail: most of a secret is one too.
//
// It holds no more than the longest spelling of a secret. A secret that is added to the set counts from the next Write on.
type Writer struct {
	set   *Set
	to    io.Writer
	found func(name string)
	eager bool

	mu    sync.Mutex // guards what follows, and is held while to is written to
	held  []byte     // what may be the beginning of a secret
	done  int        // how much of it was passed on, or replaced as part of another
	timer *time.Timer
	err   error
}

// NewWriter writes to to. found is told the name of each secret that was replaced; it may be nil.
func (s *Set) NewWriter(to io.Writer, found func(name string)) *Writer {
	if found == nil {
		found = func(string) {}
	}
	return &Writer{set: s, to: to, found: found}
}

// NewEagerWriter is NewWriter for who can't wait for a pause: a tail that may be shown is passed on at once.
func (s *Set) NewEagerWriter(to io.Writer, found func(name string)) *Writer {
	w := s.NewWriter(to, found)
	w.eager = true
	return w
}

// Write takes all of p unless the writer behind it fails.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.set.index.Load()
	if x == nil && w.err == nil { // the set is empty, and so nothing is held
		return w.to.Write(p)
	}
	text := p
	if len(w.held) > 0 {
		text = append(w.held, p...)
	}
	w.replace(x, text)
	if w.eager {
		w.show()
	} else {
		w.await()
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// replace passes on all of text but what has to be held.
func (w *Writer) replace(x *index, text []byte) {
	open, _ := x.open(text)
	before := w.done
	for _, s := range x.find(text) {
		if s.start > open { // what begins before it may be a longer one
			break
		}
		if s.start > w.done {
			w.pass(text[w.done:s.start])
			w.done = s.start
		}
		if n := &x.needles[s.needle]; s.end > w.done {
			// The rest of one whose beginning was shown is replaced like a whole one; of what overlaps another that was replaced there is
			// nothing to tell.
			if whole := s.start >= w.done || w.done == before; whole {
				w.found(n.name)
				w.substitute(n, s.start, s.end)
			} else if n.sized {
				w.substitute(n, s.start, s.end)
			}
			w.done = s.end
		}
	}
	if w.done < open {
		w.pass(text[w.done:open])
		w.done = open
	}
	w.held = append(w.held[:0], text[open:]...)
	w.done -= open
}

// substitute writes what stands for a needle that begins at start, as far as end.
func (w *Writer) substitute(n *needle, start, end int) {
	if n.sized {
		w.pass([]byte(n.by[w.done-start : end-start]))
		return
	}
	w.pass([]byte(n.by))
}

// pass writes until the first error.
func (w *Writer) pass(p []byte) {
	if w.err == nil && len(p) > 0 {
		_, w.err = w.to.Write(p)
	}
}

// await has a short tail passed on when nothing follows.
func (w *Writer) await() {
	if w.done >= len(w.held) || len(w.held) > Shown {
		if w.timer != nil {
			w.timer.Stop()
		}
		return
	}
	if w.timer == nil {
		w.timer = time.AfterFunc(idle, func() { _ = w.Flush() })
		return
	}
	w.timer.Reset(idle)
}

// Flush passes on what is held, unless it is too much of a secret's beginning to be shown.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.show()
	return w.err
}

func (w *Writer) show() {
	if len(w.held) <= Shown && w.done < len(w.held) {
		w.pass(w.held[w.done:])
		w.done = len(w.held)
	}
}

// Close ends the stream. It does not close the writer behind it.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	if x := w.set.index.Load(); x != nil && w.done < len(w.held) {
		if at, k := x.open(w.held); k >= 0 && len(w.held)-at > Shown {
			if at > w.done { // of the secrets that there are now
				w.pass(w.held[w.done:at])
				w.done = at
			}
			w.found(x.needles[k].name)
			w.substitute(&x.needles[k], at, len(w.held))
		} else {
			w.pass(w.held[w.done:])
		}
	}
	w.held, w.done = nil, 0
	return w.err
}
