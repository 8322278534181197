package broker

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// What may stand in a path is told by plain functions; these patterns say the same, for texts of all sorts.
func TestForms(t *testing.T) {
	forms := []struct {
		name    string
		is      func(string) bool
		pattern string
	}{
		{"scope", isScope, `\A[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\z`},
		{"identity", isIdentity, `\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\z`},
		{"ids", isLiteralIDs, `\A[0-9]+(?:\|[0-9]+)*\z`},
	}
	texts := []string{
		"", "/", "a/b", "a/b/c", "-a/b", "a-/b", "a/.b", "a/..", "a/_", "a_/b", "a/b\n", "\x00", "é/b", "a/é", ".", "..", "-", "_", "12", "12|34", "12|", "|12", "1||2", "1|x", "*",
		strings.Repeat("a", 39) + "/" + strings.Repeat("b", 100), strings.Repeat("a", 40) + "/b", "a/" + strings.Repeat("b", 101), strings.Repeat("c", 100), strings.Repeat("c", 101),
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		b := make([]byte, random.IntN(8))
		for i := range b {
			const some = "aZ09-_./|\n "
			b[i] = some[random.IntN(len(some))]
		}
		texts = append(texts, string(b))
	}
	for _, form := range forms {
		re, taken := regexp.MustCompile(form.pattern), 0
		for _, text := range texts {
			want := re.MatchString(text)
			if want {
				taken++
			}
			if got := form.is(text); got != want {
				t.Errorf("%s: %q is %v, want %v", form.name, text, got, want)
			}
		}
		if taken == 0 {
			t.Errorf("%s: none of the texts has that form", form.name)
		}
	}
}
