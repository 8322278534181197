package workspace

import "bytes"

// A line diff in bounded time and memory, since both sides of it come from an agent. Unique common lines
// anchor it (patience), Myers' greedy algorithm fills in between, and a stretch that costs too much is
// replaced as a whole: always right, at worst longer than need be. The libraries at hand either give up
// after 100 edits or take quadratic time.

const (
	maxDiffLines = 1 << 18 // per side; longer files are compared by their common head and tail alone
	maxDiffEdits = 1500    // edits that Myers looks for between two anchors; its memory is quadratic in this
	maxDiffWork  = 50e6    // steps for one file, about a quarter of a second
)

// edit replaces the lines [a0,a1) of the old side with the lines [b0,b1) of the new side.
type edit struct{ a0, a1, b0, b1 int }

// splitLines cuts text after each newline. The last line may lack it.
func splitLines(text []byte) [][]byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	if n := len(lines) - 1; len(lines[n]) == 0 {
		lines = lines[:n]
	}
	return lines
}

// diffLines gives the edits that turn a into b, in order, with at least one common line between two of them.
func diffLines(a, b [][]byte) []edit {
	head := 0
	for head < len(a) && head < len(b) && bytes.Equal(a[head], b[head]) {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && bytes.Equal(a[len(a)-1-tail], b[len(b)-1-tail]) {
		tail++
	}
	if head == len(a) && head == len(b) {
		return nil
	}
	whole := edit{head, len(a) - tail, head, len(b) - tail}
	if len(a) > maxDiffLines || len(b) > maxDiffLines {
		return []edit{whole}
	}
	d := differ{budget: maxDiffWork}
	d.number(a, b)
	d.patience(whole)
	d.slide()
	return d.edits
}

// differ works on lines as numbers: equal lines have equal numbers.
type differ struct {
	a, b   []int32
	edits  []edit
	budget int
}

func (d *differ) number(a, b [][]byte) {
	ids := make(map[string]int32, len(a))
	of := func(lines [][]byte) []int32 {
		out := make([]int32, len(lines))
		for i, l := range lines {
			id, ok := ids[string(l)]
			if !ok {
				id = int32(len(ids))
				ids[string(l)] = id
			}
			out[i] = id
		}
		return out
	}
	d.a, d.b = of(a), of(b)
}

// patience splits the range at the lines that occur exactly once on each side and in the same order.
func (d *differ) patience(r edit) {
	for _, m := range d.anchors(r) {
		d.myers(edit{r.a0, m[0], r.b0, m[1]})
		r.a0, r.b0 = m[0]+1, m[1]+1
	}
	d.myers(r)
}

// anchors gives the longest rising sequence of pairs (line of a, line of b) of unique common lines.
func (d *differ) anchors(r edit) [][2]int {
	type seen struct {
		na, nb int32
		j      int
	}
	lines := make(map[int32]*seen)
	for _, id := range d.a[r.a0:r.a1] {
		if lines[id] == nil {
			lines[id] = &seen{}
		}
		lines[id].na++
	}
	for j, id := range d.b[r.b0:r.b1] {
		if s := lines[id]; s != nil {
			s.nb++
			s.j = r.b0 + j
		}
	}
	var pairs [][2]int
	for i, id := range d.a[r.a0:r.a1] {
		if s := lines[id]; s.na == 1 && s.nb == 1 {
			pairs = append(pairs, [2]int{r.a0 + i, s.j})
		}
	}
	return rising(pairs)
}

// rising gives the longest subsequence of pairs whose second parts rise (patience sorting).
func rising(pairs [][2]int) [][2]int {
	var piles []int // index of the pair on top of each pile
	prev := make([]int, len(pairs))
	for i, p := range pairs {
		lo, hi := 0, len(piles)
		for lo < hi {
			if mid := (lo + hi) / 2; pairs[piles[mid]][1] < p[1] {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		prev[i] = -1
		if lo > 0 {
			prev[i] = piles[lo-1]
		}
		piles = append(piles[:lo], append([]int{i}, piles[min(lo+1, len(piles)):]...)...)
	}
	out := make([][2]int, len(piles))
	if len(piles) == 0 {
		return out
	}
	for i, k := len(piles)-1, piles[len(piles)-1]; i >= 0; i, k = i-1, prev[k] {
		out[i] = pairs[k]
	}
	return out
}

// myers appends the edits of one range: Myers, "An O(ND) Difference Algorithm" (1986), the greedy variant.
func (d *differ) myers(r edit) {
	for r.a0 < r.a1 && r.b0 < r.b1 && d.a[r.a0] == d.b[r.b0] {
		r.a0, r.b0 = r.a0+1, r.b0+1
	}
	for r.a0 < r.a1 && r.b0 < r.b1 && d.a[r.a1-1] == d.b[r.b1-1] {
		r.a1, r.b1 = r.a1-1, r.b1-1
	}
	if r.a0 == r.a1 || r.b0 == r.b1 {
		d.add(r)
		return
	}
	trace, k := d.search(r)
	if trace == nil {
		d.add(r)
		return
	}
	d.backtrack(r, trace, k)
}

// search gives for each number of edits how far each diagonal k = x-y came, and the diagonal of the end.
// It gives nil when that takes too many edits or too much work.
func (d *differ) search(r edit) (trace [][]int32, end int) {
	n, m := r.a1-r.a0, r.b1-r.b0
	limit := min(n+m, maxDiffEdits)
	v := make([]int32, 2*limit+3) // v[limit+1+k]
	mid := limit + 1
	for e := 0; e <= limit; e++ {
		for k := -e; k <= e; k += 2 {
			x := int(v[mid+k-1]) + 1
			if k == -e || (k != e && v[mid+k-1] < v[mid+k+1]) {
				x = int(v[mid+k+1])
			}
			start := x
			for x < n && x-k < m && d.a[r.a0+x] == d.b[r.b0+x-k] {
				x++
			}
			v[mid+k] = int32(x)
			if d.budget -= x - start + 1; d.budget < 0 {
				return nil, 0
			}
			if x >= n && x-k >= m {
				return append(trace, append([]int32(nil), v[mid-e:mid+e+1]...)), k
			}
		}
		trace = append(trace, append([]int32(nil), v[mid-e:mid+e+1]...))
	}
	return nil, 0
}

// backtrack walks the trace from its end and adds the edits in order.
func (d *differ) backtrack(r edit, trace [][]int32, k int) {
	at := func(e, k int) int {
		if e < 0 || k < -e || k > e {
			return -1
		}
		return int(trace[e][k+e])
	}
	var steps []edit // last first, each of one line
	for e := len(trace) - 1; e > 0; e-- {
		if k == -e || (k != e && at(e-1, k-1) < at(e-1, k+1)) {
			k++ // down: a line of b comes in
			x := at(e-1, k)
			steps = append(steps, edit{r.a0 + x, r.a0 + x, r.b0 + x - k, r.b0 + x - k + 1})
		} else {
			k-- // right: a line of a goes
			x := at(e-1, k)
			steps = append(steps, edit{r.a0 + x, r.a0 + x + 1, r.b0 + x - k, r.b0 + x - k})
		}
	}
	for i := len(steps) - 1; i >= 0; i-- {
		d.add(steps[i])
	}
}

// add appends an edit, joined with the one before it when they touch.
func (d *differ) add(e edit) {
	if e.a0 == e.a1 && e.b0 == e.b1 {
		return
	}
	if n := len(d.edits) - 1; n >= 0 && d.edits[n].a1 == e.a0 && d.edits[n].b1 == e.b0 {
		d.edits[n].a1, d.edits[n].b1 = e.a1, e.b1
		return
	}
	d.edits = append(d.edits, e)
}

// slide moves pure insertions and deletions down as far as they go, as git does, so that an added
// function starts with its first line and not with the closing brace of the one before.
func (d *differ) slide() {
	edits := d.edits
	d.edits = nil
	for i, e := range edits {
		endA, endB := len(d.a), len(d.b)
		if i+1 < len(edits) {
			endA, endB = edits[i+1].a0, edits[i+1].b0
		}
		switch {
		case e.a0 == e.a1:
			for e.a1 < endA && e.b1 < endB && d.b[e.b0] == d.b[e.b1] {
				e = edit{e.a0 + 1, e.a1 + 1, e.b0 + 1, e.b1 + 1}
			}
		case e.b0 == e.b1:
			for e.a1 < endA && e.b1 < endB && d.a[e.a0] == d.a[e.a1] {
				e = edit{e.a0 + 1, e.a1 + 1, e.b0 + 1, e.b1 + 1}
			}
		}
		d.add(e)
	}
}
