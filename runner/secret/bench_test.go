package secret

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// typicalLog is what builds and tests print.
func typicalLog() []byte {
	var b strings.Builder
	for i := 0; b.Len() < 4<<20; i++ {
		fmt.Fprintf(&b, "2026-03-01T12:00:%02dZ INFO  server/handler.go:%d handled request method=GET path=/v1/items/%d status=200 bytes=%d\n", i%60, i%997, i, i*37%10007)
		fmt.Fprintf(&b, "=== RUN   TestSomething/case_%d\n--- PASS: TestSomething/case_%d (0.0%ds)\n", i, i, i%10)
		fmt.Fprintf(&b, "\x1b[32mok\x1b[0m  \tgithub.com/acme/shop/internal/pkg%d\t0.%03ds\n", i%50, i%1000)
	}
	return []byte(b.String())
}

// BenchmarkRedactor is what `make bench` shows: a log in the pieces that the link gives, and in lines.
func BenchmarkRedactor(b *testing.B) {
	text := typicalLog()
	long := func(i int) string {
		return fmt.Sprintf("ghs_%07d_eyJhbGciOiJSUzI1NiJ9.%s", i, strings.Repeat(fmt.Sprintf("aZ%dq", i), 100))
	}
	for _, secrets := range []struct {
		name  string
		texts []string
	}{
		{"none", nil},
		{"one", []string{tokenText}},
		{"ten", []string{long(1), long(2), long(3), long(4), long(5), "sk-ant-api03-" + strings.Repeat("Qx7", 30), "AIzaSyA-0123456789abcdefghijklmnopqrst", tokenText, oddText, "hunter2hunter2"}},
	} {
		for _, size := range []int{32 << 10, 120} {
			b.Run(fmt.Sprintf("secrets=%s/piece=%d", secrets.name, size), func(b *testing.B) {
				w := setOf(b, secrets.texts...).NewWriter(io.Discard, nil)
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					for rest := text; len(rest) > 0; {
						n, err := w.Write(rest[:min(size, len(rest))])
						if err != nil {
							b.Fatal(err)
						}
						rest = rest[n:]
					}
				}
				_ = w.Close()
			})
		}
	}
}

// BenchmarkAdd is what a renewed token costs.
func BenchmarkAdd(b *testing.B) {
	for b.Loop() {
		new(Set).Add("github", New(tokenText))
	}
}
