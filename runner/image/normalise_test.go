package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// item is an entry of a layer of the tests.
type item struct {
	name, text string
	kind       byte
	link       string
	mode       int64
	at         int64
}

func testLayer(t *testing.T, items ...item) layerFile {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h := &tar.Header{Name: i.name, Typeflag: i.kind, Linkname: i.link, Mode: i.mode, Size: int64(len(i.text)), ModTime: time.Unix(i.at, 0), Uname: "somebody"}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, i.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	return layerFile{name: name, diffID: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}, size: int64(b.Len())}
}

// pyc is a file of bytecode for a source with this time and size.
func pyc(at, size uint32) string {
	b := make([]byte, 16)
	binary.LittleEndian.PutUint32(b[8:], at)
	binary.LittleEndian.PutUint32(b[12:], size)
	return string(b) + "code"
}

const testEpoch = 1_600_000_000

func normaliseOf(t *testing.T, secret [][]byte, layers ...layerFile) (*normal, error) {
	t.Helper()
	s := &saved{config: v1.ConfigFile{Architecture: "amd64", OS: "linux"}, layers: layers}
	return normalise(t.TempDir(), s, shape{base: []string{layers[0].diffID.String()}, epoch: time.Unix(testEpoch, 0).UTC(), inputs: hexDigest("1"), secret: secret})
}

func baseLayer(t *testing.T) layerFile {
	return testLayer(
		t, item{name: "etc/", kind: tar.TypeDir, mode: 0o755}, item{name: "etc/shadow", text: "root:*:100:0:::::\n"},
		item{name: "etc/hosts", text: "base\n"}, item{name: "gone", text: "x"}, item{name: "dir/a", text: "a"}, item{name: "dir/b", text: "b"},
		item{name: "kept.py", text: "1", at: 77},
	)
}

// TestNormalise has two builds that differ in all that a build leaves by chance, and wants one image with the rest.
func TestNormalise(t *testing.T) {
	build := func(day, noise string, at int64, more ...item) *normal {
		layer := testLayer(t, append([]item{
			{name: "etc/shadow", text: "root:*:100:0:::::\nagent:!:" + day + ":0:::::\n", at: at},
			{name: "etc/hosts", text: noise},
			{name: "etc/machine-id", text: noise},
			{name: "etc/passwd-", text: noise},
			{name: "var/log/dpkg.log", text: noise},
			{name: "var/log/link", kind: tar.TypeSymlink, link: "/dev/stdout"},
			{name: "tmp/" + noise, text: noise},
			{name: "root/.npm/_logs/" + noise, text: noise},
			{name: "root/.cache/browser", text: "kept"},
			{name: "opt/m.py", text: "1", at: at},
			{name: "opt/__pycache__/m.cpython-313.pyc", text: pyc(uint32(at), 1), at: at},
			{name: "opt/stale.py", text: "22", at: at},
			{name: "opt/__pycache__/stale.cpython-313.pyc", text: pyc(7, 1)},
			{name: "__pycache__/kept.cpython-313.pyc", text: pyc(77, 1)},
			{name: "opt/hard", kind: tar.TypeLink, link: "opt/m.py"},
			{name: ".wh.gone"},
			{name: "dir/.wh..wh..opq"},
			{name: "dir/b", text: "b", at: at},
		}, more...)...)
		n, err := normaliseOf(t, nil, baseLayer(t), layer)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	one, two := build("20000", "one", 1_700_000_000), build("20001", "two", 1_800_000_001)
	if one.Digest() != two.Digest() || one.ID() != two.ID() {
		t.Errorf("the images differ:\n%s\n%s", listing(t, one.layers[1]), listing(t, two.layers[1]))
	}
	want := []string{
		"__pycache__/ -", "__pycache__/kept.cpython-313.pyc " + pyc(77, 1), "dir/.wh.a ", "etc/machine-id ",
		"etc/shadow root:*:100:0:::::\nagent:!:18518:0:::::\n", ".wh.gone ", "opt/ -", "opt/__pycache__/ -",
		"opt/__pycache__/m.cpython-313.pyc " + pyc(testEpoch, 1), "opt/hard 1", "opt/m.py =opt/hard", "opt/stale.py 22", "root/ -",
		"root/.cache/ -", "root/.cache/browser kept", "root/.npm/ -", "tmp/ -", "var/ -", "var/log/ -", "var/log/link =/dev/stdout",
	}
	if diff := cmp.Diff(want, listing(t, one.layers[1])); diff != "" {
		t.Errorf("the layer (-want +got):\n%s", diff)
	}
	if other := build("20000", "one", 1_700_000_000, item{name: "opt/new", text: "x"}); other.Digest() == one.Digest() {
		t.Error("another file makes no other image")
	}
	if other := build("20000", "one", 1_700_000_000, item{name: "opt/stale.py", text: "22", mode: 0o755}); other.Digest() == one.Digest() {
		t.Error("another mode makes no other image")
	}
}

// listing are a layer's entries with their content. Each must have the one date and no names of users.
func listing(t *testing.T, l layerFile) []string {
	t.Helper()
	var all []string
	err := eachEntry(l.name, func(h *tar.Header, _ int64, r io.Reader) error {
		if h.ModTime.Unix() != testEpoch || h.Uname != "" {
			t.Errorf("%s has the time %s and the owner %q", h.Name, h.ModTime, h.Uname)
		}
		b, err := io.ReadAll(r)
		text := string(b)
		switch h.Typeflag {
		case tar.TypeDir:
			text = "-"
		case tar.TypeLink, tar.TypeSymlink:
			text = "=" + h.Linkname
		}
		all = append(all, h.Name+" "+text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestNormaliseRoundTrip reads what was written, as an engine would.
func TestNormaliseRoundTrip(t *testing.T) {
	n, err := normaliseOf(t, nil, baseLayer(t), testLayer(t, item{name: "new", text: "x"}))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := n.write(&b); err != nil {
		t.Fatal(err)
	}
	s, err := unpack(t.TempDir(), &b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(s.config); err != nil || !bytes.Equal(got, n.config) {
		t.Errorf("the configuration is %s, %v, want %s", got, err, n.config)
	}
	if s.config.Config.Labels[LabelSBOM] != n.bill.Digest() || s.config.Config.Labels[LabelInputs] != hexDigest("1") {
		t.Errorf("labels: %v", s.config.Config.Labels)
	}
}

// TestUnpackTampered: a layer that is not what the configuration says is refused.
func TestUnpackTampered(t *testing.T) {
	n, err := normaliseOf(t, nil, baseLayer(t), testLayer(t, item{name: "new", text: "unaltered"}))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := n.write(&b); err != nil {
		t.Fatal(err)
	}
	altered := bytes.Replace(b.Bytes(), []byte("unaltered"), []byte("UNALTERED"), 1)
	if _, err := unpack(t.TempDir(), bytes.NewReader(altered)); err == nil || !strings.Contains(err.Error(), "the image's configuration says") {
		t.Errorf("unpack of an altered image: %v", err)
	}
	for _, size := range []int{0, 512, b.Len() / 2} {
		if _, err := unpack(t.TempDir(), bytes.NewReader(b.Bytes()[:size])); err == nil {
			t.Errorf("unpack of %d bytes of it is no error", size)
		}
	}
}

// TestNormaliseSecret: an extra certificate that a Dockerfile copies about is found, and what the build itself laid down is gone.
func TestNormaliseSecret(t *testing.T) {
	der := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7}, 60)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	laid := item{name: buildDir + "/ca.pem", text: string(ca)}
	n, err := normaliseOf(t, secrets(ca), baseLayer(t), testLayer(t, laid, item{name: "opt/x", text: "x"}))
	if err != nil {
		t.Fatal(err)
	}
	if got := n.tree.lookup(buildDir); got != nil {
		t.Errorf("%s is left", buildDir)
	}
	for name, text := range map[string]string{"as text": "more\n" + string(ca), "binary": "x" + string(der)} {
		_, err := normaliseOf(t, secrets(ca), baseLayer(t), testLayer(t, laid, item{name: "etc/ssl/bundle", text: text}))
		if err == nil || !strings.Contains(err.Error(), "/etc/ssl/bundle") {
			t.Errorf("a copy %s: %v", name, err)
		}
	}
}

func TestCompareOrder(t *testing.T) {
	a, b := item{name: "a", text: "a"}, item{name: "b", text: "b"}
	left, err := viewOf(v1.ConfigFile{}, []layerFile{testLayer(t, a, b)})
	if err != nil {
		t.Fatal(err)
	}
	right, err := viewOf(v1.ConfigFile{}, []layerFile{testLayer(t, b, a)})
	if err != nil {
		t.Fatal(err)
	}
	got := compare(left, right)
	if len(got) != 1 || !slices.Equal(got[0].Why, []Reason{ReasonOrder}) {
		t.Errorf("compare = %+v, want one difference in order", got)
	}
	if got := compare(left, left); len(got) != 0 {
		t.Errorf("an image differs from itself: %+v", got)
	}
}

func TestSBOM(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip("this test reads its own program")
	}
	status := "Package: git\nStatus: install ok installed\nVersion: 1:2.47\nArchitecture: amd64\nDescription: x\n more: y\n\n" +
		"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
	n, err := normaliseOf(t, nil, baseLayer(t), testLayer(
		t, item{name: "var/lib/dpkg/status", text: status},
		item{name: "usr/lib/node_modules/@anthropic-ai/claude-code/package.json", text: `{"name":"@anthropic-ai/claude-code","version":"2.0.1"}`},
		item{name: "opt/node_modules/@openai/codex/package.json", text: `{"name":"@openai/codex","version":"1.0.0"}`},
		item{name: "opt/node_modules/@openai/codex-linux-x64/package.json", text: `{"name":"@openai/codex","version":"1.0.0-linux-x64"}`},
		item{name: "usr/lib/node_modules/x/fixtures/package.json", text: `{"name":"fixture","version":"1"}`},
		item{name: "usr/lib/node_modules/broken/package.json", text: `{`},
		item{name: "usr/bin/tool", text: string(self), mode: 0o755},
	))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range n.bill.Components {
		got = append(got, c.PURL)
	}
	for _, want := range []string{"pkg:deb/debian/git@1:2.47?arch=amd64", "pkg:npm/%40anthropic-ai/claude-code@2.0.1"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing in %q", want, got)
		}
	}
	if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "pkg:golang/stdlib@") }) {
		t.Errorf("the Go program is missing in %q", got)
	}
	for _, purl := range got {
		if strings.Contains(purl, "fixture") || strings.Contains(purl, "gone") {
			t.Errorf("%s is no package of the image", purl)
		}
	}
	v := n.bill.VersionsOf(map[string]string{"@anthropic-ai/claude-code": "claude", "@openai/codex": "codex"})
	if diff := cmp.Diff(map[string]string{"claude": "2.0.1", "codex": "1.0.0"}, v); diff != "" {
		t.Errorf("agents (-want +got):\n%s", diff)
	}
}
