package workspace

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// patched applies edits to a, taking new lines from b, and checks that what is kept is equal on both sides.
func patched(t *testing.T, a, b [][]byte, edits []edit) string {
	t.Helper()
	var out bytes.Buffer
	i, j := 0, 0
	for n, e := range edits {
		if e.a0 < i || e.b0 < j || (n > 0 && e.a0 == i && e.b0 == j) {
			t.Fatalf("edit %d %v: out of order or touching the one before", n, e)
		}
		if e.a0-i != e.b0-j {
			t.Fatalf("edit %d %v: keeps %d old lines but %d new ones", n, e, e.a0-i, e.b0-j)
		}
		for ; i < e.a0; i, j = i+1, j+1 {
			out.Write(a[i])
			if !bytes.Equal(a[i], b[j]) {
				t.Fatalf("edit %d %v: line %q kept as %q", n, e, a[i], b[j])
			}
		}
		out.Write(bytes.Join(b[e.b0:e.b1], nil))
		i, j = e.a1, e.b1
	}
	out.Write(bytes.Join(a[i:], nil))
	return out.String()
}

func randomText(r *rand.Rand, lines, alphabet int) string {
	var b strings.Builder
	for range lines {
		fmt.Fprintf(&b, "line %d\n", r.IntN(alphabet))
	}
	if r.IntN(3) == 0 {
		return strings.TrimSuffix(b.String(), "\n")
	}
	return b.String()
}

func TestDiffLinesTurnsOldIntoNew(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		a := randomText(r, r.IntN(30), 1+r.IntN(40))
		b := randomText(r, r.IntN(30), 1+r.IntN(40))
		la, lb := splitLines([]byte(a)), splitLines([]byte(b))
		if got := patched(t, la, lb, diffLines(la, lb)); got != b {
			t.Fatalf("case %d: %q to %q gave %q", i, a, b, got)
		}
	}
}

func TestDiffLinesIsShort(t *testing.T) {
	tests := []struct{ name, a, b, want string }{
		{"nothing", "a\nb\n", "a\nb\n", "[]"},
		{"from empty", "", "a\nb\n", "[{0 0 0 2}]"},
		{"to empty", "a\nb\n", "", "[{0 2 0 0}]"},
		{"last newline", "a\nb", "a\nb\n", "[{1 2 1 2}]"},
		{"repeated lines", "x\nx\nx\n", "x\nx\n", "[{2 3 2 2}]"},
		{"middle", "a\nb\nc\nd\n", "a\nB\nc\nd\n", "[{1 2 1 2}]"},
		{"two", "a\nb\nc\nd\ne\n", "b\nc\nd\nE\n", "[{0 1 0 0} {4 5 3 4}]"},
		{"added function", "f {\n}\n\ng {\n}\n", "f {\n}\n\nh {\n}\n\ng {\n}\n", "[{3 3 3 6}]"},
	}
	for _, tt := range tests {
		if got := fmt.Sprint(diffLines(splitLines([]byte(tt.a)), splitLines([]byte(tt.b)))); got != tt.want {
			t.Errorf("%s: %q to %q = %s, want %s", tt.name, tt.a, tt.b, got, tt.want)
		}
	}
}

// Inputs that make diff programs quadratic must end in time, and be right.
func TestDiffLinesIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	few := func(n int) string { return randomText(r, n, 3) }
	tests := []struct{ name, a, b string }{
		{"few distinct lines", few(100_000), few(100_000)},
		{"no line in common", strings.Repeat("a\n", 200_000), strings.Repeat("b\n", 200_000)},
		{"too many lines", few(maxDiffLines + 5), few(maxDiffLines + 5)},
		{"period", strings.Repeat("a\nb\n", 60_000), strings.Repeat("b\na\na\n", 40_000)},
	}
	for _, tt := range tests {
		la, lb := splitLines([]byte(tt.a)), splitLines([]byte(tt.b))
		start := time.Now()
		edits := diffLines(la, lb)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: took %v", tt.name, took)
		}
		if patched(t, la, lb, edits) != tt.b {
			t.Errorf("%s: the edits do not give the new text", tt.name)
		}
	}
}
