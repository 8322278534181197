package image

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parse(t *testing.T, text string) *Dockerfile {
	t.Helper()
	d, err := parseDockerfile([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestBases(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		args       map[string]string
		want       []string
	}{
		{"one", "FROM debian:13\n", nil, []string{"debian:13"}},
		{"argument", "ARG BASE=debian:13\nFROM ${BASE}\n", nil, []string{"debian:13"}},
		{"argument given", "ARG BASE=debian:13\nFROM $BASE\n", map[string]string{"BASE": "other:1"}, []string{"other:1"}},
		{"default in place", "ARG V\nFROM debian:${V:-12}\n", nil, []string{"debian:12"}},
		{"stages", "FROM --platform=linux/amd64 a:1 AS Build\nFROM build AS two\nFROM scratch\nFROM two\n", nil, []string{"a:1", "a:1", "scratch", "a:1"}},
		{"continued, with comments", "# syntax=x\nFROM \\\n# why\n\n  a:1 \\\n  as b\r\n", nil, []string{"a:1"}},
		{"another escape", "# escape=`\nFROM `\n a:1\n", nil, []string{"a:1"}},
		{"a heredoc is no instruction", "FROM a:1\nRUN <<EOF\nFROM b:1\nEOF\nCOPY <<-\"X Y\" /f\nUSER u\n", nil, []string{"a:1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parse(t, tt.text).Bases(tt.args)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("Bases = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestDockerfileRefused(t *testing.T) {
	for _, text := range []string{"", "RUN true\n", "FROM\n", "FROM a b c d\n", strings.Repeat("#", maxDockerfile+1)} {
		if _, err := parseDockerfile([]byte(text)); err == nil {
			t.Errorf("parseDockerfile(%.20q) is no error", text)
		}
	}
	if got, err := parse(t, "FROM ${NOTHING}\n").Bases(nil); err == nil {
		t.Errorf("a base without a value is %q", got)
	}
}

func TestUntil(t *testing.T) {
	const text = "FROM a:1 AS agent\nCOPY one /\n\n# of the second\nFROM agent AS Action\nCOPY two /\nFROM b:1\n"
	for _, tt := range []struct{ target, want string }{
		{"", text},
		{"agent", "FROM a:1 AS agent\nCOPY one /\n\n"},
		{"ACTION", text[:strings.LastIndex(text, "FROM")]},
	} {
		d, err := parse(t, text).until(tt.target)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(d.source); got != tt.want {
			t.Errorf("until(%q) = %q, want %q", tt.target, got, tt.want)
		}
	}
	if d, err := parse(t, text).until("nothing"); err == nil {
		t.Errorf("until an unknown stage is %q", d.source)
	}
}

func TestCopies(t *testing.T) {
	for _, tt := range []struct {
		line string
		want []string
		all  bool
	}{
		{"COPY a b /x/", []string{"a", "b"}, false},
		{"COPY --chown=1:1 ./src/../a /x", []string{"a"}, false},
		{`ADD ["a file", "/x"]`, []string{"a file"}, false},
		{`COPY ["a", "/x"]`, []string{"a"}, false},
		{"COPY --from=build /out /x", nil, false},
		{"ADD https://example.org/x /x", nil, false},
		{"COPY <<EOF /x\ntext\nEOF", nil, false},
		{"COPY . /x", []string{""}, true},
		{"COPY $WHAT /x", nil, true},
		{"RUN --mount=type=bind,target=/x make", nil, true},
		{"RUN make", nil, false},
	} {
		d := parse(t, "FROM a:1\n"+tt.line+"\n")
		if d.all != tt.all || !tt.all && !slices.Equal(d.copies, tt.want) {
			t.Errorf("%q copies %q, all %v; want %q, %v", tt.line, d.copies, d.all, tt.want, tt.all)
		}
	}
}

func TestWithAfterFrom(t *testing.T) {
	got := string(parse(t, "ARG A=a\nFROM $A \\\n AS x\nRUN one\nFROM x").withAfterFrom("ARG N\n"))
	want := "ARG A=a\nFROM $A \\\n AS x\nARG N\nRUN one\nFROM x\nARG N\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestIgnore(t *testing.T) {
	list, err := parseIgnore("# comment\n\n*.log\n/dist\n**/node_modules\ndocs/*\n!docs/keep.md\n[ab].txt\na?c\n")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"x.log": true, "deep/x.log": false, "dist": true, "dist/a/b": true, "sub/dist": false, "node_modules/x": true,
		"a/b/node_modules": true, "docs/a.md": true, "docs/keep.md": false, "a.txt": true, "c.txt": false, "abc": true, "a/c": false,
	} {
		if got := list.match(name); got != want {
			t.Errorf("match(%q) = %v, want %v", name, got, want)
		}
	}
	if _, err := parseIgnore("[a\n"); err == nil {
		t.Error("a broken pattern is taken")
	}
}

// FuzzDockerfile: whatever the text, what follows each FROM follows each FROM, and the text is otherwise the same.
func FuzzDockerfile(f *testing.F) {
	for _, seed := range []string{"FROM a\n", "# escape=`\nFROM `\n a\nRUN <<X\nFROM b\nX\n", "ARG A=\"b\"\nFROM ${A:-c} AS d\r\nCOPY [\"a\", \"b\"]\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := parseDockerfile([]byte(text))
		if err != nil {
			return
		}
		const mark = "ARG __mark__\n"
		got := string(d.withAfterFrom(mark))
		if n := strings.Count(got, mark) - strings.Count(text, mark); n != len(d.stages) {
			t.Fatalf("%d marks for %d stages in %q", n, len(d.stages), got)
		}
		_, _ = d.Bases(nil)
	})
}
