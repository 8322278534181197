package secret

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

const (
	tokenText = "ghs_1234567_abcdefghijklmnopqrstuvwxyzABCD"
	oddText   = `p/w+d&"<é>?:\ %41=~`
)

// spelled are the texts in which a secret would be met, each as a program would write it.
func spelled(s string) map[string]string {
	quotedText, _ := json.Marshal("x" + s + "y")
	all := map[string]string{
		"plain": s, "hex": hex.EncodeToString([]byte(s)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(s))),
		"query": url.QueryEscape(s), "path": url.PathEscape(s), "form": url.Values{"token": {s}}.Encode(),
		"percent": "https://a.example/?" + percent(s), "JSON": string(quotedText),
		"basic user": base64.StdEncoding.EncodeToString([]byte("x-access-token:" + s)),
		"basic":      base64.StdEncoding.EncodeToString([]byte(s + ":")),
		"wrapped":    wrapped(base64.StdEncoding.EncodeToString([]byte(strings.Repeat("some text before ", 9) + s + " and behind"))),
	}
	if !utf8.ValidString(s) { // it has no JSON
		delete(all, "JSON")
	}
	for offset := range 3 {
		for name, e := range map[string]*base64.Encoding{"std": base64.StdEncoding, "rawstd": base64.RawStdEncoding, "url": base64.URLEncoding, "rawurl": base64.RawURLEncoding} {
			all[fmt.Sprintf("base64 %s at %d", name, offset)] = e.EncodeToString([]byte("abc"[:offset] + s + "tail"))
			all[fmt.Sprintf("base64 %s at %d, at the end", name, offset)] = e.EncodeToString([]byte("abc"[:offset] + s))
		}
	}
	return all
}

func percent(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

func wrapped(s string) string {
	var b strings.Builder
	for len(s) > 76 {
		b.WriteString(s[:76] + "\r\n")
		s = s[76:]
	}
	return b.String() + s
}

// survives finds a secret in a text by undoing the spellings, without what the package under test uses: the name of one, or "".
func survives(text, s string) string {
	joined := strings.NewReplacer("\r", "", "\n", "").Replace(text)
	low := strings.ToLower(joined)
	switch {
	case strings.Contains(text, s):
		return "plain"
	case strings.Contains(low, hex.EncodeToString([]byte(s))):
		return "hex"
	case strings.Contains(unescape(text), s):
		return "URL"
	}
	for _, run := range strings.FieldsFunc(joined, func(r rune) bool { return !strings.ContainsRune(base64Chars, r) }) {
		run = strings.NewReplacer("-", "+", "_", "/").Replace(run)
		for start := range min(4, len(run)) {
			decoded, _ := base64.RawStdEncoding.DecodeString(run[start : start+(len(run)-start)/4*4])
			if bytes.Contains(decoded, []byte(s[:len(s)-2])) { // the end may be in what is no whole group
				return "base64"
			}
		}
	}
	return ""
}

const base64Chars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"

func unescape(s string) string {
	plain, err := url.QueryUnescape(s)
	if err != nil {
		return s
	}
	return plain
}

func setOf(t testing.TB, texts ...string) *Set {
	t.Helper()
	s := new(Set)
	for i, text := range texts {
		if !s.Add(fmt.Sprintf("name%d", i), New(text)) {
			t.Fatalf("%q is not taken", text)
		}
	}
	return s
}

// through writes text in pieces of these sizes, which are used over and over.
func through(t testing.TB, s *Set, text string, sizes ...int) (string, int) {
	t.Helper()
	var out bytes.Buffer
	found := 0
	w := s.NewWriter(&out, func(string) { found++ })
	for i := 0; len(text) > 0; i++ {
		n := min(len(text), max(1, sizes[i%len(sizes)]))
		if got, err := w.Write([]byte(text[:n])); got != n || err != nil {
			t.Fatalf("Write = %d, %v", got, err)
		}
		text = text[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String(), found
}

func TestEverySpellingIsRedacted(t *testing.T) {
	for _, s := range []string{tokenText, oddText} {
		set := setOf(t, s)
		for name, text := range spelled(s) {
			text = "before " + text + " behind\n"
			if got := set.Redact(text, nil); strings.Contains(got, text) || !strings.Contains(got, "[redacted:name0]") || survives(got, s) != "" {
				t.Errorf("%s: Redact(%q) = %q", name, text, got)
			}
			for size := 1; size < 40; size += 3 {
				got, found := through(t, set, text, size)
				if survives(got, s) != "" || found != 1 || !strings.HasPrefix(got, "before ") || !strings.HasSuffix(got, " behind\n") {
					t.Errorf("%s in pieces of %d: %q, %d found", name, size, got, found)
				}
			}
		}
	}
}

func TestOtherTextIsNotTouched(t *testing.T) {
	set := setOf(t, tokenText, oddText)
	for _, text := range []string{
		"", "g", "ghs_", tokenText[:len(tokenText)-1] + "x", tokenText[1:], base64.StdEncoding.EncodeToString([]byte(tokenText[1:20])), "\r\n\r\n",
		strings.Repeat("ghs_1234567_abc", 100), strings.Repeat(tokenText[:30], 3) + "\n",
	} {
		if got := set.Redact(text, nil); got != text {
			t.Errorf("Redact(%q) = %q", text, got)
		}
		if got, found := through(t, set, text+"\n", 1, 7); got != text+"\n" || found != 0 {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestSeveralAtOnce(t *testing.T) {
	inner, outer := "inner-secret-0123", "outer-inner-secret-0123-more"
	set := setOf(t, inner, outer, tokenText)
	text := inner + inner + outer + tokenText + outer[:20] + inner + "."
	for size := range 60 {
		got, _ := through(t, set, text, size+1)
		for _, s := range []string{inner, outer, tokenText} {
			if strings.Contains(got, s) {
				t.Errorf("pieces of %d: %q", size+1, got)
			}
		}
	}
	want := "[redacted:name0][redacted:name0][redacted:name1][redacted:name2]outer-inner-secret-0[redacted:name0]."
	if got := set.Redact(text, nil); got != want {
		t.Errorf("Redact = %q, want %q", got, want)
	}
}

// TestPause: a prompt is not held back, and what was shown of a secret is little.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := setOf(t, tokenText).NewWriter(&out, nil)
		write := func(s, want string) {
			t.Helper()
			out.Reset()
			if _, err := io.WriteString(w, s); err != nil || out.String() != want {
				t.Errorf("Write(%q) passed %q, %v, want %q", s, out.String(), err, want)
			}
		}
		pause := func(want string) {
			t.Helper()
			out.Reset()
			time.Sleep(2 * idle) // the clock of synctest
			synctest.Wait()
			if out.String() != want {
				t.Errorf("the pause passed %q, want %q", out.String(), want)
			}
		}
		write("Continue? [y/n] g", "Continue? [y/n] ")
		pause("g")
		write("o\n", "o\n")
		write("ghs_12", "")
		pause("ghs_12")
		write(tokenText[6:20], "")
		pause("")
		write(tokenText[20:]+"\n", "[redacted:name0]\n")
		write(tokenText[:20], "")
		pause("")
		write("no\n", tokenText[:20]+"no\n")
		write(tokenText[:30], "")
		out.Reset()
		if err := w.Close(); err != nil || out.String() != "[redacted:name0]" {
			t.Errorf("Close passed %q, %v", out.String(), err)
		}
	})
}

func TestAddedWhileItRuns(t *testing.T) {
	set := new(Set)
	var out bytes.Buffer
	w := set.NewWriter(&out, nil)
	renewed := strings.ToUpper(tokenText)
	for _, step := range []func(){
		func() { fmt.Fprint(w, tokenText[:10]) },
		func() { set.Add("github", New(tokenText)) },
		func() { fmt.Fprint(w, " ", tokenText, tokenText[:15]) },
		func() { set.Add("github", New(renewed)) },
		func() { fmt.Fprint(w, tokenText[15:], renewed) },
	} {
		step()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), tokenText[:10]+" [redacted:github][redacted:github][redacted:github]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSwapKeepsTheLength: bodies of answers have a length that was told before.
func TestSwapKeepsTheLength(t *testing.T) {
	var set Set
	placeholder := "ghs_0000000_ffffffffffffffffffffffffffffff"
	if !set.Swap("github", New(tokenText), placeholder) {
		t.Fatal("not taken")
	}
	for name, text := range spelled(tokenText) {
		for _, text := range []string{"a" + text + "b", text + text, text[:len(text)-3]} {
			for _, size := range []int{1, 5, 64, len(text)} {
				var out bytes.Buffer
				w := set.NewEagerWriter(&out, nil)
				for piece := range slices.Chunk([]byte(text), size) {
					if _, err := w.Write(piece); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.Close(); err != nil || out.Len() != len(text) {
					t.Errorf("%s: %d bytes became %d, %v", name, len(text), out.Len(), err)
				}
				if name != "wrapped" && survives(out.String(), tokenText) != "" {
					t.Errorf("%s in pieces of %d: %q", name, size, out.String())
				}
			}
		}
	}
}

func TestWriterPassesErrorsOn(t *testing.T) {
	bad := errors.New("bad")
	for _, set := range []*Set{{}, setOf(t, tokenText)} {
		w := set.NewWriter(failing{bad}, nil)
		if _, err := w.Write([]byte("text")); !errors.Is(err, bad) {
			t.Errorf("Write: %v", err)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestShortSecretsAreNotTaken(t *testing.T) {
	var set Set
	if set.Add("short", New("1234567")) || set.Add("none", Value{}) || !set.IsEmpty() {
		t.Error("a short secret is taken")
	}
}

func FuzzWriter(f *testing.F) {
	f.Add(tokenText, "text ghs_1234", uint64(1))
	f.Add(oddText, "%2F%20", uint64(2))
	f.Add("aaaaaaaaaaaaaaaa", strings.Repeat("a", 100), uint64(3))
	f.Add("abcabcabcabd", "abcabcabcabcabcabd", uint64(4))
	f.Fuzz(func(t *testing.T, s, text string, seed uint64) {
		if len(s) < MinLength || len(s) > 1<<10 || len(text) > 1<<12 {
			return
		}
		set := setOf(t, s)
		r := rand.New(rand.NewPCG(seed, 1))
		var sizes []int
		for range 8 {
			sizes = append(sizes, 1+r.IntN(24))
		}
		// Text that has none, nor the beginning of one at its end, is not touched.
		if _, k := set.index.Load().open([]byte(text)); len(set.Find(text)) == 0 && k < 0 {
			if got, found := through(t, set, text, sizes...); got != text || found != 0 {
				t.Fatalf("%q became %q", text, got)
			}
		}
		// A secret in any spelling does not survive; text around it could only spell another by chance.
		for name, spell := range spelled(s) {
			got, found := through(t, set, text+"\n\n"+spell+"\n\n"+text, sizes...)
			for _, e := range encodings() {
				if n := e.encode(s); strings.Contains(got, n) && !strings.Contains("[redacted:name0]", n) {
					t.Fatalf("%s: %q is in %q", name, n, got)
				}
			}
			if found == 0 {
				t.Fatalf("%s: nothing found in %q", name, spell)
			}
		}
	})
}
