package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// LockFile is the name of the lock file, beside the policy.
const LockFile = ".agent-sandbox.lock"

// LockVersion is the only format of the lock file that this program reads and writes.
const LockVersion = 1

// MaxLock bounds a lock file in bytes.
const MaxLock = 1 << 20

// Lock is what a project's images were resolved to. Its JSON is the lock file: sorted, one value to a line, so that a diff
// shows what changed.
type Lock struct {
	Version int              `json:"version"`
	Images  map[string]Entry `json:"images"` // by what the policy says, see [BuildKey] for what is built
}

// Entry is one image.
type Entry struct {
	Digest   string    `json:"digest"`   // of the manifest, or the id of an image that only the engine has
	ID       string    `json:"id"`       // what the engine that resolved it calls it
	Platform string    `json:"platform"` // such as linux/amd64
	From     string    `json:"from"`     // registry, engine or build
	Resolved time.Time `json:"resolved"`
	Build    *Recipe   `json:"build,omitempty"`
	// Agents are the versions of the coding agents in it, as far as they are packages.
	Agents map[string]string `json:"agents,omitempty"`
	SBOM   string            `json:"sbom,omitempty"` // digest of the list of packages
}

// Where an image came from.
const (
	FromRegistry = "registry"
	FromEngine   = "engine"
	FromBuild    = "build"
)

// Recipe is what an image was built from.
type Recipe struct {
	Dockerfile string            `json:"dockerfile"` // digest
	Context    string            `json:"context"`    // digest of the files that it copies
	Args       map[string]string `json:"args,omitempty"`
	// Agents are what was installed on top, by the names of their kits.
	Agents map[string]AgentLock `json:"agents,omitempty"`
	Inputs string               `json:"inputs"` // digest of all of these
	Bases  []Base               `json:"bases,omitempty"`
	Epoch  int64                `json:"epoch"` // seconds since 1970
	// Offline: the build's commands had no network, and are given none when the image is rebuilt.
	Offline bool `json:"offline,omitempty"`
}

// AgentLock pins an agent that is installed on top of an image.
type AgentLock struct {
	Version string `json:"version"`
	Lock    string `json:"lock"` // digest of npm's lock file, which has the hashes of all that is installed
}

// FromKey is how the lock calls an image with agents on top of another one.
func FromKey(reference string, agents []string) string { return withAgents("from:"+reference, agents) }

// withAgents is the key of an image with agents on top; their order does not count.
func withAgents(key string, agents []string) string {
	for _, name := range slices.Sorted(slices.Values(agents)) {
		key += "+" + name
	}
	return key
}

// BuildKey is how the lock calls an image that is built from a Dockerfile of the project, or from a stage of it, with agents on top.
func BuildKey(dockerfile, target string, agents []string) string {
	key := "build:" + filepath.ToSlash(dockerfile)
	if target != "" {
		key += "#" + target
	}
	return withAgents(key, agents)
}

// LockError is a lock file that can't be used.
type LockError struct {
	File         string
	Line, Column int
	Message      string
}

func (e *LockError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s\nhint: `agent-sandbox image lock` writes it anew", e.File, e.Line, e.Column, e.Message)
}

// ReadLock reads a lock file. The error wraps fs.ErrNotExist if there is none, and is a LockError if it can't be used.
func ReadLock(name string) (*Lock, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxLock+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return ParseLock(name, b)
}

// ParseLock reads a lock file's text: strictly, since what is overlooked in it would not be enforced.
func ParseLock(name string, b []byte) (*Lock, error) {
	fail := func(offset int64, format string, args ...any) error {
		line, column := position(b, offset)
		return &LockError{name, line, column, fmt.Sprintf(format, args...)}
	}
	if len(b) > MaxLock {
		return nil, fail(0, "it is larger than %d bytes", MaxLock)
	}
	if offset, err := uniqueKeys(b); err != nil {
		return nil, fail(offset, "%v", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	l := new(Lock)
	if err := d.Decode(l); err != nil {
		offset := d.InputOffset()
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			offset = wrong.Offset
		}
		// There is no type for this one. If its text changes, the place is less exact.
		if _, key, ok := strings.Cut(err.Error(), "unknown field "); ok {
			offset = max(int64(bytes.Index(b, []byte(key))), 0)
		}
		return nil, fail(offset, "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if l.Version != LockVersion {
		return nil, fail(0, "version %d is not one that this program knows, which is %d", l.Version, LockVersion)
	}
	for _, key := range slices.Sorted(maps.Keys(l.Images)) {
		if err := l.Images[key].check(key); err != nil {
			return nil, fail(max(int64(bytes.Index(b, []byte(quoted(key)))), 0), "image %q: %v", key, err)
		}
	}
	return l, nil
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic("image: a string has no JSON: " + err.Error())
	}
	return string(b)
}

var (
	digestForm   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	platformForm = regexp.MustCompile(`^linux/[a-z0-9]+(?:/[a-z0-9]+)?$`)
)

func (e Entry) check(key string) error {
	digests := map[string]string{"digest": e.Digest, "id": e.ID}
	if e.SBOM != "" {
		digests["sbom"] = e.SBOM
	}
	if r := e.Build; r != nil {
		digests["build.dockerfile"], digests["build.context"], digests["build.inputs"] = r.Dockerfile, r.Context, r.Inputs
		for name, a := range r.Agents {
			digests["build.agents."+name+".lock"] = a.Lock
		}
		for i, b := range r.Bases {
			digests[fmt.Sprintf("build.bases[%d].digest", i)] = b.Digest
		}
	}
	for _, name := range slices.Sorted(maps.Keys(digests)) {
		if !digestForm.MatchString(digests[name]) {
			return fmt.Errorf("%s: %q is not sha256: and 64 hexadecimal digits", name, digests[name])
		}
	}
	isBuild := strings.HasPrefix(key, "build:") || strings.HasPrefix(key, "from:")
	switch {
	case !platformForm.MatchString(e.Platform):
		return fmt.Errorf("platform: %q is not such as linux/amd64", e.Platform)
	case e.From != FromRegistry && e.From != FromEngine && e.From != FromBuild:
		return fmt.Errorf("from: %q is none of registry, engine, build", e.From)
	case isBuild != (e.Build != nil) || isBuild != (e.From == FromBuild):
		return errors.New("build: it is there for an image that is built, and for no other")
	case e.Resolved.IsZero():
		return errors.New("resolved: there is no time")
	}
	return e.checkAgents()
}

// checkAgents compares what was installed with what was found.
func (e Entry) checkAgents() error {
	if e.Build == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(e.Build.Agents)) {
		if installed, found := e.Build.Agents[name].Version, e.Agents[name]; installed != found {
			return fmt.Errorf("agents.%s: %q was found in the image, and %q was installed", name, found, installed)
		}
	}
	return nil
}

// position is a place in a text, counted from one.
func position(b []byte, offset int64) (line, column int) {
	before := b[:min(max(offset, 0), int64(len(b)))]
	return bytes.Count(before, []byte("\n")) + 1, len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1
}

// maxDepth bounds the nesting of a lock file: the format has six levels.
const maxDepth = 16

// uniqueKeys refuses JSON that says a thing twice, or goes on after its end: readers differ in which of the two they take.
func uniqueKeys(b []byte) (offset int64, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := uniqueValue(d, 0); err != nil {
		return d.InputOffset(), err
	}
	if _, err := d.Token(); err != io.EOF {
		return d.InputOffset(), errors.New("something follows the end")
	}
	return 0, nil
}

func uniqueValue(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth > maxDepth {
		return errors.New("it is nested too deep")
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			t, err := d.Token()
			if err != nil {
				return err
			}
			key, _ := t.(string)
			if seen[key] {
				return fmt.Errorf("the key %q is there twice", key)
			}
			seen[key] = true
		}
		if err := uniqueValue(d, depth+1); err != nil {
			return err
		}
	}
	if _, err = d.Token(); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// JSON is the lock as it is written.
func (l *Lock) JSON() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(l); err != nil {
		panic("image: a lock has no JSON: " + err.Error())
	}
	return b.Bytes()
}

// WriteFile writes the lock file, whole or not at all, and none that could not be read.
func (l *Lock) WriteFile(name string) (err error) {
	if _, err := ParseLock(name, l.JSON()); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(l.JSON())
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}

// Same tells whether two entries say the same of an image; when it was resolved does not count.
func (e Entry) Same(o Entry) bool {
	e.Resolved, o.Resolved = time.Time{}, time.Time{}
	a, errA := json.Marshal(e)
	b, errB := json.Marshal(o)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// Digests are what an engine may call the image.
func (e Entry) Digests() []string {
	if e.ID == e.Digest {
		return []string{e.Digest}
	}
	return []string{e.Digest, e.ID}
}
