package secret

import (
	"cmp"
	"slices"
)

const (
	// MinLength is that of the shortest secret that is looked for: a shorter one is met by chance.
	MinLength = 8
	// maxWindow bounds how far the search can jump.
	maxWindow = 16
	// blockBits is the size of the table of jumps; three bytes of text are mixed into one place of it.
	blockBits = 15
)

// index finds many needles at once, by the algorithm of Wu and Manber ("A fast algorithm for multi-pattern searching", 1994): the last
// three bytes of a window say how far it can be moved without missing one. It is not changed after it was made.
type index struct {
	needles []needle
	window  int // bytes that are looked at; no needle is shorter
	jump    [1 << blockBits]uint8
	ends    map[uint32][]entry // by the block at the window's end, where the jump is 0
	first   [256][]int32       // needles by their first byte
	pairs   [1 << 16 / 64]uint64
	reach   int // how many bytes the longest match can take
}

// entry is a place in a needle that the window can be at. Those that may have a line break have two, since it can be in one of them.
type entry struct{ needle, skip int32 }

// span is a needle found in a text.
type span struct {
	start, end int
	needle     int32
}

// block mixes three bytes.
func block(a, b, c byte) uint32 {
	return (uint32(a)<<10 ^ uint32(b)<<5 ^ uint32(c)) & (1<<blockBits - 1)
}

// newIndex is nil when there is nothing to look for.
func newIndex(all []needle) *index {
	if len(all) == 0 {
		return nil
	}
	x := &index{needles: all, window: maxWindow, ends: map[uint32][]entry{}}
	for i, n := range all {
		x.window = min(x.window, len(n.text))
		x.reach = max(x.reach, n.reach())
		x.first[n.text[0]] = append(x.first[n.text[0]], int32(i))
		pair := uint(n.text[0])<<8 | uint(n.text[1])
		x.pairs[pair/64] |= 1 << (pair % 64)
	}
	for i := range x.jump {
		x.jump[i] = uint8(x.window - 2)
	}
	for i, n := range all {
		x.enter(int32(i), 0)
		if n.wraps && len(n.text) >= 2*x.window {
			x.enter(int32(i), x.window)
		}
	}
	return x
}

// enter makes the window stop at a place of a needle.
func (x *index) enter(needle int32, skip int) {
	text := x.needles[needle].text[skip : skip+x.window]
	for i := 3; i <= len(text); i++ {
		b := block(text[i-3], text[i-2], text[i-1])
		x.jump[b] = min(x.jump[b], uint8(len(text)-i))
		if i == len(text) {
			x.ends[b] = append(x.ends[b], entry{needle, int32(skip)})
		}
	}
}

// find returns all that is in text, also what overlaps, by where it starts.
func (x *index) find(text []byte) []span {
	var found []span
	for end := x.window; end <= len(text); {
		b := block(text[end-3], text[end-2], text[end-1])
		if jump := x.jump[b]; jump > 0 {
			end += int(jump)
			continue
		}
		for _, e := range x.ends[b] {
			if s, ok := x.check(text, end-x.window, e); ok {
				found = append(found, s)
			}
		}
		end++
	}
	slices.SortFunc(found, func(a, b span) int { return cmp.Or(a.start-b.start, b.end-a.end) })
	return found
}

func (x *index) check(text []byte, at int, e entry) (span, bool) {
	n := &x.needles[e.needle]
	start, ok := n.back(text, at, int(e.skip))
	if !ok {
		return span{}, false
	}
	end, whole, _ := n.follow(text, start)
	return span{start, end, e.needle}, whole
}

// open is where a needle may have begun that text has not all of yet, and which: len(text) and -1 if there is none.
func (x *index) open(text []byte) (int, int32) {
	for i := max(0, len(text)-x.reach+1); i < len(text); i++ {
		candidates := x.first[text[i]]
		if len(candidates) == 0 {
			continue
		}
		if i+1 < len(text) {
			pair := uint(text[i])<<8 | uint(text[i+1])
			if x.pairs[pair/64]&(1<<(pair%64)) == 0 && text[i+1] != '\r' && text[i+1] != '\n' {
				continue
			}
		}
		for _, k := range candidates {
			if _, _, open := x.needles[k].follow(text, i); open {
				return i, k
			}
		}
	}
	return len(text), -1
}
