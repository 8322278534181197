package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Source says what to build from.
type Source struct {
	File    string            // path of the Dockerfile on the host
	Base    string            // instead of a Dockerfile: the image that the agents are put on, as FROM has it
	Context string            // directory on the host that the Dockerfile copies from; empty for its own
	Target  string            // the stage to build; empty for the last
	Args    map[string]string // build arguments
	Agents  []Agent           // to be installed on top of what the Dockerfile builds
	Hidden  func(path string, dir bool) bool
	// Hidden tells of a path in the context, slash-separated, that it never gets into an image; nil for none. Where
	// the context is a part of the project, its paths are relative to the context all the same.
}

// Inputs are everything that decides what is built, but for the images that it starts from and what the build gets from
// the network. They are read once, so that what is hashed is what is built.
type Inputs struct {
	Dockerfile *Dockerfile
	Args       map[string]string
	Files      []File               // what the Dockerfile copies, sorted by path; nothing else is sent to the engine
	Agents     map[string]AgentLock // what is installed on top, by the names of the kits
	root       *os.Root             // of the context; nil without one
	built      *Dockerfile          // with the stages that install agents
	agents     []extraFile          // that these stages copy
}

// File is a file of the context, as git would know it: of its mode only the executable bit counts, of its times none.
type File struct {
	Path   string      `json:"path"`
	Mode   fs.FileMode `json:"mode"` // 0644, 0755, or the type bit of a directory or a symbolic link
	Size   int64       `json:"-"`
	SHA256 string      `json:"sha256,omitempty"`
	Link   string      `json:"link,omitempty"`
}

// Bounds of a build's context.
const (
	maxContextFiles = 100_000
	maxContextBytes = 4 << 30
)

// ReadInputs reads a Dockerfile and hashes what it copies. Close must be called.
func ReadInputs(src Source) (_ *Inputs, err error) {
	in := &Inputs{Args: src.Args}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.Close())
		}
	}()
	text := []byte("FROM " + src.Base + "\n")
	if src.Base == "" {
		if text, err = in.open(src); err != nil {
			return nil, err
		}
	}
	if in.Dockerfile, err = parseDockerfile(text); err == nil {
		in.Dockerfile, err = in.Dockerfile.until(src.Target)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmp.Or(src.File, src.Base), err)
	}
	in.built = in.Dockerfile
	if err := in.install(src.Agents); err != nil {
		return nil, err
	}
	if in.root == nil {
		return in, nil
	}
	return in, in.gather(filepath.Base(src.File), src.Hidden)
}

// open reads the Dockerfile and opens the context.
func (in *Inputs) open(src Source) ([]byte, error) {
	dir := filepath.Dir(src.File)
	beside, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	defer beside.Close()
	text, err := readBounded(beside, filepath.Base(src.File), maxDockerfile)
	if err != nil {
		return nil, fmt.Errorf("read Dockerfile: %w", err)
	}
	if in.root, err = os.OpenRoot(cmp.Or(src.Context, dir)); err != nil {
		return nil, fmt.Errorf("build context: %w", err)
	}
	return text, nil
}

// Close lets go of the context.
func (in *Inputs) Close() error {
	if in.root == nil {
		return nil
	}
	return in.root.Close()
}

func readBounded(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return b, err
}

// gather finds the files that the Dockerfile copies.
func (in *Inputs) gather(dockerfile string, hidden func(string, bool) bool) error {
	if !in.Dockerfile.all && len(in.Dockerfile.copies) == 0 {
		return nil
	}
	ignore, err := in.ignored(dockerfile)
	if err != nil {
		return err
	}
	wanted, err := in.wanted()
	if err != nil {
		return err
	}
	var total int64
	err = fs.WalkDir(in.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		switch {
		case name == ".git", hidden != nil && hidden(name, d.IsDir()), ignore.match(name) && !(d.IsDir() && ignore.negates()):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !wanted(name), ignore.match(name):
			return nil
		}
		f, err := in.file(name)
		if err != nil {
			return fmt.Errorf("build context: %w", err)
		}
		in.Files = append(in.Files, f)
		if total += f.Size; len(in.Files) > maxContextFiles || total > maxContextBytes {
			return fmt.Errorf("build context: more than %d files or %d bytes\nhint: name what the image doesn't need in .dockerignore", maxContextFiles, int64(maxContextBytes))
		}
		return nil
	})
	slices.SortFunc(in.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return err
}

// ignored is the Dockerfile's own ignore file, else the context's.
func (in *Inputs) ignored(dockerfile string) (ignored, error) {
	for _, name := range []string{dockerfile + ".dockerignore", ".dockerignore"} {
		text, err := readBounded(in.root, name, maxDockerfile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("build context: %w", err)
		}
		return parseIgnore(string(text))
	}
	return nil, nil
}

// wanted tells which paths the Dockerfile copies: those that a pattern names, and what is below.
func (in *Inputs) wanted() (func(string) bool, error) {
	if in.Dockerfile.all {
		return func(string) bool { return true }, nil
	}
	var patterns ignored
	for _, c := range in.Dockerfile.copies {
		re, err := globRegexp(c)
		if err != nil {
			return nil, fmt.Errorf("COPY %s: %w", c, err)
		}
		patterns = append(patterns, ignorePattern{re: re})
	}
	return patterns.match, nil
}

func (in *Inputs) file(name string) (File, error) {
	st, err := in.root.Lstat(name)
	if err != nil {
		return File{}, err
	}
	f := File{Path: name}
	switch {
	case st.IsDir():
		f.Mode = fs.ModeDir
	case st.Mode()&fs.ModeSymlink != 0:
		f.Mode = fs.ModeSymlink
		f.Link, err = in.root.Readlink(name)
	case st.Mode().IsRegular():
		f.Mode, f.Size = 0o644, st.Size()
		if st.Mode()&0o100 != 0 {
			f.Mode = 0o755
		}
		f.SHA256, err = in.hash(name, f.Size)
	default:
		err = fmt.Errorf("%s is neither a file, a directory nor a link", name)
	}
	return f, err
}

func (in *Inputs) hash(name string, size int64) (string, error) {
	f, err := in.root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if n, err := io.Copy(h, io.LimitReader(f, size+1)); err != nil || n != size {
		return "", fmt.Errorf("read %s: %w", name, errors.Join(err, errChanging(n != size)))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func errChanging(changed bool) error {
	if changed {
		return errors.New("it changes while it is read")
	}
	return nil
}

// dockerfileDigest is the digest of the Dockerfile.
func (in *Inputs) dockerfileDigest() string { return digestOf(in.Dockerfile.source) }

// contextDigest is the digest of the list of files that the Dockerfile copies, with their content.
func (in *Inputs) contextDigest() string {
	b, err := json.Marshal(in.Files)
	if err != nil {
		panic("image: a list of files has no JSON: " + err.Error())
	}
	return digestOf(b)
}

// Digest is the digest of all inputs.
func (in *Inputs) Digest() string {
	var b strings.Builder
	fmt.Fprintf(&b, "agent-sandbox build 1\n%s\n%s\n", in.dockerfileDigest(), in.contextDigest())
	for _, name := range slices.Sorted(maps.Keys(in.Args)) {
		fmt.Fprintf(&b, "%q=%q\n", name, in.Args[name])
	}
	for _, f := range in.agents {
		fmt.Fprintf(&b, "%q %s\n", f.name, digestOf(f.content))
	}
	if len(in.agents) > 0 {
		fmt.Fprintf(&b, "%s\n", digestOf(in.built.source))
	}
	return digestOf([]byte(b.String()))
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// dockerfileName is the Dockerfile's name in the context that the engine gets.
const dockerfileName = ".agent-sandbox-dockerfile"

// writeContext writes the context as a tar stream: the same for the same inputs, whatever the checkout. Files that are not
// what was hashed any more are an error.
func (in *Inputs) writeContext(w io.Writer, at time.Time, dockerfile []byte, extra []extraFile) error {
	tw := tar.NewWriter(w)
	extra = append(extra, extraFile{dockerfileName, dockerfile})
	for _, e := range extra {
		h := &tar.Header{Name: e.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(e.content)), ModTime: at}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(e.content); err != nil {
			return err
		}
	}
	made := map[string]bool{}
	for _, f := range in.Files {
		if err := in.writeParents(tw, f.Path, at, made); err != nil {
			return err
		}
		if err := in.writeFile(tw, f, at, made); err != nil {
			return fmt.Errorf("build context: %w", err)
		}
	}
	return tw.Close()
}

// extraFile is one that is added to a context.
type extraFile struct {
	name    string
	content []byte
}

// writeParents writes the directories above a path that are not there yet.
func (in *Inputs) writeParents(tw *tar.Writer, name string, at time.Time, made map[string]bool) error {
	dir := path.Dir(name)
	if dir == "." || made[dir] {
		return nil
	}
	if err := in.writeParents(tw, dir, at, made); err != nil {
		return err
	}
	made[dir] = true
	return tw.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: at})
}

func (in *Inputs) writeFile(tw *tar.Writer, f File, at time.Time, made map[string]bool) error {
	h := &tar.Header{Name: f.Path, Mode: int64(f.Mode.Perm()), ModTime: at}
	switch {
	case f.Mode.IsDir():
		if made[f.Path] {
			return nil
		}
		made[f.Path] = true
		h.Name, h.Typeflag, h.Mode = f.Path+"/", tar.TypeDir, 0o755
		return tw.WriteHeader(h)
	case f.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		return tw.WriteHeader(h)
	}
	h.Typeflag, h.Size = tar.TypeReg, f.Size
	r, err := in.root.Open(f.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(tw, sum), io.LimitReader(r, f.Size))
	if err == nil && (n != f.Size || !bytes.Equal(sum.Sum(nil), mustHex(f.SHA256))) {
		err = fmt.Errorf("%s: %w", f.Path, errChanging(true))
	}
	return err
}

// mustHex decodes what we encoded.
func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic("image: not hex: " + s)
	}
	return b
}
