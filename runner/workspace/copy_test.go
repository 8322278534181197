package workspace

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
)

func copyOf(t *testing.T, cfg Config, project ...string) *View {
	t.Helper()
	cfg.Project, cfg.Mode = t.TempDir(), policy.ModeCopy
	if cfg.UID == 0 {
		cfg.UID, cfg.GID = 1000, 1001
	}
	populate(t, cfg.Project, project...)
	return prepare(t, cfg)
}

func pack(t *testing.T, v *View) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := v.Pack(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// headers reads the names of an archive and what is noted of each.
func headers(t *testing.T, archive []byte) map[string]*tar.Header {
	t.Helper()
	all := make(map[string]*tar.Header)
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = h
	}
}

func TestPack(t *testing.T) {
	v := copyOf(t, Config{Hide: matcherOf(t, "*.pem", ".ssh/")}, "a=1", "d/b=22", "d/key.pem=s", ".ssh/id=s", "l@/etc/passwd", "e/")
	when := time.Unix(1_600_000_000, 123_456_789)
	if err := os.Chtimes(filepath.Join(v.cfg.Project, "a"), when, when); err != nil {
		t.Fatal(err)
	}
	got := headers(t, pack(t, v))
	var names []string
	for name, h := range got {
		names = append(names, name)
		if h.Uid != 1000 || h.Gid != 1001 || h.Uname != "" {
			t.Errorf("%s belongs to %d:%d %q, want the agent 1000:1001", name, h.Uid, h.Gid, h.Uname)
		}
	}
	want := []string{"./", "a", "d/", "d/b", "e/", "l"}
	if diff := cmp.Diff(want, names, cmpSorted()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if got["l"].Linkname != "/etc/passwd" {
		t.Errorf("symlink: %+v", got["l"])
	}
	if runtime.GOOS == "linux" && !got["a"].ModTime.Equal(when) {
		t.Errorf("time of a: %v, want %v, to the nanosecond", got["a"].ModTime, when)
	}
	if diff := cmp.Diff([]string{".ssh", "d/key.pem"}, v.hidden); diff != "" {
		t.Errorf("hidden (-want +got):\n%s", diff)
	}
}

// rewrite makes the archive that an engine gives back: the same with a directory of its own before each name, changed
// by edit, which returns nil to leave an entry out; then come the extra ones.
func rewrite(t *testing.T, archive []byte, edit func(h *tar.Header, content string) (*tar.Header, string), extra ...tarEntry) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h *tar.Header, content string) {
		if h == nil {
			return
		}
		h.Name, h.Size = "workspace/"+strings.TrimPrefix(h.Name, "./"), int64(len(content))
		if h.Typeflag == tar.TypeLink {
			h.Linkname = "workspace/" + h.Linkname
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		content, readErr := io.ReadAll(r)
		if err != nil || readErr != nil {
			t.Fatal(err, readErr)
		}
		put(edit(h, string(content)))
	}
	for _, e := range extra {
		put(e.header(), e.content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

type tarEntry struct {
	name, content, link string
	typ                 byte
	mode                int64
}

func (e tarEntry) header() *tar.Header {
	h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.typ, Mode: e.mode, Format: tar.FormatPAX}
	if e.typ == 0 {
		h.Typeflag = tar.TypeReg
	}
	if e.mode == 0 {
		h.Mode = 0o644
	}
	return h
}

func same(h *tar.Header, content string) (*tar.Header, string) { return h, content }

func TestExtractCopy(t *testing.T) {
	big := strings.Repeat("big", smallFile)
	v := copyOf(t, Config{Hide: matcherOf(t, ".env")}, "a=1", "b=1", "d/c=3", "d/e=4", "gone/x=5", "l@a", ".env=s", "big="+big, "big2="+big)
	archive := rewrite(t, pack(t, v), func(h *tar.Header, content string) (*tar.Header, string) {
		switch h.Name {
		case "a":
			return h, "2"
		case "b":
			h.Mode = 0o4755
		case "d/c":
			h.Name = "d/moved"
		case "l":
			h.Linkname = "b"
		case "big2":
			content += "!"
		case "gone/", "gone/x":
			return nil, ""
		}
		return h, content
	}, tarEntry{name: "hard", link: "a", typ: tar.TypeLink}, tarEntry{name: ".env", content: "mine"}, tarEntry{name: "fifo", typ: tar.TypeFifo})
	cs, err := v.Extract(t.Context(), Sources{Tar: archive})
	if err != nil {
		t.Fatal(err)
	}
	want := `added .env (reject: hidden from the agent: would overwrite what the host has there)
modified a
mode b
modified big2
renamed d/c -> d/moved
added fifo
deleted gone
deleted gone/x
added hard
modified l`
	if diff := cmp.Diff(want, describe(cs)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := cs.check(); err != nil {
		t.Error(err)
	}
	wantBlobs := map[string]bool{hashString("2"): true, hashString("mine"): true, hashString(big + "!"): true}
	blobs, err := os.ReadDir(filepath.Join(v.cfg.StateDir, BlobsDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		if !wantBlobs[b.Name()] {
			t.Errorf("blob %s, which no change needs", b.Name())
		}
		delete(wantBlobs, b.Name())
	}
	if len(wantBlobs) > 0 {
		t.Errorf("blobs missing: %v", wantBlobs)
	}
}

func TestExtractCopyOfNothingChanged(t *testing.T) {
	v := copyOf(t, Config{}, "a=1", "d/e=", "l@a", "x/y/z=1")
	cs, err := v.Extract(t.Context(), Sources{Tar: rewrite(t, pack(t, v), same)})
	if err != nil || len(cs.Changes) > 0 {
		t.Errorf("got\n%s\n%v", describe(cs), err)
	}
}

func TestExtractCopyNoticesHostChanges(t *testing.T) {
	v := copyOf(t, Config{}, "a=1", "b=1", "c=1")
	archive := rewrite(t, pack(t, v), func(h *tar.Header, content string) (*tar.Header, string) {
		if h.Name == "./" {
			return h, ""
		}
		return h, content + "agent"
	}, tarEntry{name: "new", content: "agent"})
	populate(t, v.cfg.Project, "a=host", "new=host")
	if err := os.Remove(filepath.Join(v.cfg.Project, "b")); err != nil {
		t.Fatal(err)
	}
	cs, err := v.Extract(t.Context(), Sources{Tar: archive})
	if err != nil {
		t.Fatal(err)
	}
	want := "modified a (host changed)\nmodified b (host changed)\nmodified c\nadded new (host changed)"
	if got := describe(cs); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What no engine makes of files is refused whole: something is wrong with it.
func TestExtractCopyRefuses(t *testing.T) {
	for name, entry := range map[string]tarEntry{
		"climbing":                 {name: "../x"},
		"climbing inside":          {name: "d/../../x"},
		"dot":                      {name: "d/./x"},
		"double slash":             {name: "d//x"},
		"NUL":                      {name: "d/x\x00y"},
		"twice":                    {name: "a"},
		"below a file":             {name: "a/x"},
		"below nothing":            {name: "no/x"},
		"below a symlink":          {name: "l/x"},
		"long name":                {name: "d/" + strings.Repeat("n", 256)},
		"long path":                {name: strings.Repeat("d/", 2100) + "x"},
		"hard link out":            {name: "x", link: "../../etc/passwd", typ: tar.TypeLink},
		"hard link to nothing":     {name: "x", link: "no", typ: tar.TypeLink},
		"hard link to itself":      {name: "x", link: "x", typ: tar.TypeLink},
		"hard link to directory":   {name: "x", link: "d", typ: tar.TypeLink},
		"symlink without target":   {name: "x", typ: tar.TypeSymlink},
		"symlink with long target": {name: "x", link: strings.Repeat("t", 5000), typ: tar.TypeSymlink},
		"contiguous file":          {name: "x", typ: tar.TypeCont},
	} {
		t.Run(name, func(t *testing.T) {
			v := copyOf(t, Config{}, "a=1", "d/b=1", "l@d")
			var archive io.Reader
			if strings.Contains(entry.name, "\x00") {
				archive = withRawName(t, rewrite(t, pack(t, v), same, tarEntry{name: "d/xNy"}), "d/xNy", entry.name)
			} else {
				archive = rewrite(t, pack(t, v), same, entry)
			}
			cs, err := v.Extract(t.Context(), Sources{Tar: archive})
			if err == nil {
				t.Errorf("got\n%s\nwant an error", describe(cs))
			}
			if blobs, _ := os.ReadDir(filepath.Join(v.cfg.StateDir, BlobsDir)); len(blobs) > 0 {
				t.Errorf("left %d blobs behind", len(blobs))
			}
		})
	}
}

// withRawName puts a name into the archive that archive/tar would not write.
func withRawName(t *testing.T, archive io.Reader, from, to string) io.Reader {
	t.Helper()
	data, err := io.ReadAll(archive)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, []byte(from))
	if at < 0 || len(from) != len(to) {
		t.Fatalf("%q is not in the archive", from)
	}
	copy(data[at:], to)
	return bytes.NewReader(data)
}

func TestExtractCopyRefusesArchives(t *testing.T) {
	v := func() *View { return copyOf(t, Config{}, "a=1") }
	packed := func(v *View) []byte {
		b, err := io.ReadAll(rewrite(t, pack(t, v), same, tarEntry{name: "b", content: strings.Repeat("x", 4096)}))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Run("cut short", func(t *testing.T) {
		v := v()
		data := packed(v)
		if cs, err := v.Extract(t.Context(), Sources{Tar: bytes.NewReader(data[:len(data)-4096])}); err == nil {
			t.Errorf("got\n%s", describe(cs))
		}
	})
	t.Run("empty", func(t *testing.T) {
		v := v()
		pack(t, v)
		if cs, err := v.Extract(t.Context(), Sources{Tar: strings.NewReader("")}); err == nil {
			t.Errorf("got\n%s: everything deleted, which nobody did", describe(cs))
		}
	})
	t.Run("never packed", func(t *testing.T) {
		if cs, err := v().Extract(t.Context(), Sources{Tar: strings.NewReader("")}); err == nil {
			t.Errorf("got\n%s", describe(cs))
		}
	})
}

func TestExtractCopyLimits(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
		extra  []tarEntry
		what   string
	}{
		{"entries", Limits{Changes: 2}, []tarEntry{{name: "x"}, {name: "y"}, {name: "z"}}, "files and directories"},
		{"bytes", Limits{Bytes: 10}, []tarEntry{{name: "x", content: "12345"}, {name: "y", content: "1234567"}}, "bytes of new contents"},
		{"depth", Limits{Depth: 2}, []tarEntry{
			{name: "x/", typ: tar.TypeDir},
			{name: "x/y/", typ: tar.TypeDir},
			{name: "x/y/z/", typ: tar.TypeDir},
		}, "directories above each other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := copyOf(t, Config{Limits: tt.limits}, "a=1", "zz=1")
			cs, err := v.Extract(t.Context(), Sources{Tar: rewrite(t, pack(t, v), same, tt.extra...)})
			var over *LimitError
			if !errors.As(err, &over) || over.What != tt.what {
				t.Fatalf("got error %v, want one of the limit of %s", err, tt.what)
			}
			if cs == nil || len(cs.Changes) == 0 {
				t.Errorf("got no part of the change set")
			}
			for _, c := range cs.Changes {
				if c.Kind == Deleted {
					t.Errorf("%q is called deleted, although the archive was not read to its end", c.Path)
				}
			}
		})
	}
}

func FuzzExtractCopy(f *testing.F) {
	for _, names := range [][2]string{{"workspace/", "workspace/a"}, {"./", "./a"}, {"w/", "../a"}} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		_ = w.WriteHeader(&tar.Header{Name: names[0], Typeflag: tar.TypeDir, Mode: 0o755})
		_ = w.WriteHeader(&tar.Header{Name: names[1], Typeflag: tar.TypeReg, Mode: 0o4644, Size: 1})
		_, _ = w.Write([]byte("x"))
		_ = w.Close()
		f.Add(b.Bytes())
	}
	project := f.TempDir()
	populate(f, project, "a=1", "d/b=2")
	f.Fuzz(func(t *testing.T, archive []byte) {
		state := t.TempDir()
		v := prepare(t, Config{Project: project, StateDir: state, Mode: policy.ModeCopy, UID: 1000, GID: 1000, Limits: Limits{Bytes: 1 << 20}})
		if err := v.Pack(t.Context(), io.Discard); err != nil {
			t.Fatal(err)
		}
		cs, err := v.Extract(t.Context(), Sources{Tar: bytes.NewReader(archive)})
		if err == nil && cs.check() != nil {
			t.Errorf("a change set that no other part takes: %v", cs.check())
		}
		// Whatever the archive says, it puts nothing anywhere but blobs under their digests.
		for p, e := range readTree(t, state) {
			if p != BlobsDir && p != BlobsDir+"/"+e.SHA256 {
				t.Errorf("the archive made %q", p)
			}
		}
		if got := readTree(t, project); len(got) != 3 {
			t.Errorf("the archive changed the project: %q", got.paths())
		}
	})
}
