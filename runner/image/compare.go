package image

import (
	"archive/tar"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Reason says in what two images differ at one place.
type Reason string

// The reasons.
const (
	ReasonAdded   Reason = "added"   // the rebuilt image has it, the locked one does not
	ReasonRemoved Reason = "removed" // the other way round
	ReasonType    Reason = "type"
	ReasonContent Reason = "content"
	ReasonMode    Reason = "mode"
	ReasonOwner   Reason = "owner"
	ReasonLink    Reason = "link"
	ReasonTime    Reason = "time"
	ReasonXattr   Reason = "xattr"
	ReasonOrder   Reason = "order" // the same entries, in another order
	ReasonLayer   Reason = "layer" // the layers are divided otherwise
	ReasonConfig  Reason = "config"
)

// Difference is one difference between a locked image and its rebuilt one.
type Difference struct {
	Path   string   `json:"path"` // absolute, in the image; of a configuration the name of the value; empty for a layer
	Layer  int      `json:"layer"`
	Why    []Reason `json:"why"`
	Locked string   `json:"locked,omitempty"`
	Built  string   `json:"built,omitempty"`
}

// maxDifferences bounds a comparison: after so many nobody reads on.
const maxDifferences = 1000

// view is what is compared of an image.
type view struct {
	config v1.ConfigFile
	layers []layerFile
	order  [][]string       // the paths of each layer, as it has them
	tree   *node            // what a container sees
	last   map[string]where // by path
}

// where is the entry that a path is from.
type where struct {
	layer   int
	modTime time.Time
}

func viewOf(config v1.ConfigFile, layers []layerFile) (*view, error) {
	v := &view{config: config, layers: layers, last: map[string]where{}}
	var err error
	if v.tree, err = readTree(layers); err != nil {
		return nil, err
	}
	for i, l := range layers {
		var order []string
		err := eachEntry(l.name, func(h *tar.Header, _ int64, _ io.Reader) error {
			name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
			v.last[name] = where{i, h.ModTime}
			order = append(order, name)
			return nil
		})
		if err != nil {
			return nil, err
		}
		v.order = append(v.order, order)
	}
	return v, nil
}

// compare lists the differences between the locked image and the rebuilt one.
func compare(locked, built *view) []Difference {
	all := compareConfig(locked.config, built.config)
	files := compareTrees(locked, built)
	all = append(all, files...)
	if len(all) == 0 {
		all = compareLayers(locked, built)
	}
	if len(all) > maxDifferences {
		all = all[:maxDifferences]
	}
	return all
}

func compareTrees(locked, built *view) []Difference {
	left, right := paths(locked.tree), paths(built.tree)
	names := maps.Clone(left)
	maps.Copy(names, right)
	var all []Difference
	for _, name := range slices.Sorted(maps.Keys(names)) {
		a, b := left[name], right[name]
		d := Difference{Path: "/" + name, Layer: built.last[name].layer}
		switch {
		case a == nil:
			d.Why, d.Built = []Reason{ReasonAdded}, describe(b)
		case b == nil:
			d.Layer = locked.last[name].layer
			d.Why, d.Locked = []Reason{ReasonRemoved}, describe(a)
		default:
			d.compareNodes(a, b, locked.last[name].modTime, built.last[name].modTime)
		}
		if len(d.Why) > 0 {
			all = append(all, d)
		}
	}
	return all
}

func paths(root *node) map[string]*node {
	all := map[string]*node{}
	_ = root.walk("", func(name string, n *node) error { // the function has no errors
		all[name] = n
		return nil
	})
	return all
}

// compareNodes finds what two things of the same path differ in.
func (d *Difference) compareNodes(a, b *node, at, bt time.Time) {
	var left, right []string
	add := func(differ bool, why Reason, l, r any) {
		if differ {
			d.Why = append(d.Why, why)
			left, right = append(left, fmt.Sprint(l)), append(right, fmt.Sprint(r))
		}
	}
	add(a.kind != b.kind, ReasonType, kindName(a.kind), kindName(b.kind))
	if a.kind == b.kind {
		add(a.sum != b.sum || a.size != b.size, ReasonContent, contentOf(a), contentOf(b))
		add(a.link != b.link || a.major != b.major || a.minor != b.minor, ReasonLink, cmp.Or(a.link, "device"), cmp.Or(b.link, "device"))
	}
	add(a.mode != b.mode, ReasonMode, fmt.Sprintf("%04o", a.mode), fmt.Sprintf("%04o", b.mode))
	add(a.uid != b.uid || a.gid != b.gid, ReasonOwner, fmt.Sprintf("%d:%d", a.uid, a.gid), fmt.Sprintf("%d:%d", b.uid, b.gid))
	add(!maps.Equal(a.xattrs, b.xattrs), ReasonXattr, xattrNames(a), xattrNames(b))
	add(!at.Equal(bt), ReasonTime, stamp(at), stamp(bt))
	d.Locked, d.Built = strings.Join(left, ", "), strings.Join(right, ", ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func xattrNames(n *node) string {
	return strings.Join(slices.Sorted(maps.Keys(n.xattrs)), " ")
}

func contentOf(n *node) string { return fmt.Sprintf("%d bytes, sha256 %x", n.size, n.sum[:6]) }

func describe(n *node) string {
	if n.kind == tar.TypeReg {
		return contentOf(n)
	}
	return kindName(n.kind)
}

func kindName(kind byte) string {
	switch kind {
	case tar.TypeReg:
		return "file"
	case tar.TypeDir:
		return "directory"
	case tar.TypeSymlink:
		return "symbolic link"
	case tar.TypeFifo:
		return "pipe"
	}
	return "device"
}

// compareLayers is for images that show a container the same files.
func compareLayers(locked, built *view) []Difference {
	var all []Difference
	for i := range max(len(locked.layers), len(built.layers)) {
		switch {
		case i >= len(locked.layers):
			all = append(all, Difference{Layer: i, Why: []Reason{ReasonLayer}, Built: built.layers[i].diffID.String()})
		case i >= len(built.layers):
			all = append(all, Difference{Layer: i, Why: []Reason{ReasonLayer}, Locked: locked.layers[i].diffID.String()})
		case locked.layers[i].diffID != built.layers[i].diffID:
			why := ReasonLayer
			if !slices.Equal(locked.order[i], built.order[i]) {
				why = ReasonOrder
			}
			all = append(all, Difference{
				Layer: i, Why: []Reason{why}, Locked: locked.layers[i].diffID.String(), Built: built.layers[i].diffID.String(),
			})
		}
	}
	return all
}

// compareConfig compares what is not a file. The list of layers is compared elsewhere.
func compareConfig(a, b v1.ConfigFile) []Difference {
	var all []Difference
	left, right := settings(a), settings(b)
	for _, name := range slices.Sorted(maps.Keys(left)) {
		if !reflect.DeepEqual(left[name], right[name]) {
			all = append(all, Difference{Path: name, Why: []Reason{ReasonConfig}, Locked: asJSON(left[name]), Built: asJSON(right[name])})
		}
	}
	return all
}

func settings(f v1.ConfigFile) map[string]any {
	c := f.Config
	labels := maps.Clone(c.Labels)
	delete(labels, LabelSBOM) // which follows from the files
	delete(labels, LabelInputs)
	return map[string]any{
		"architecture": path.Join(f.Architecture, f.Variant), "created": stamp(f.Created.Time), "Cmd": c.Cmd, "Entrypoint": c.Entrypoint, "Env": c.Env,
		"Healthcheck": c.Healthcheck, "Labels": labels, "OnBuild": c.OnBuild, "User": c.User, "Volumes": c.Volumes,
		"ExposedPorts": c.ExposedPorts, "StopSignal": c.StopSignal, "Shell": c.Shell, "WorkingDir": c.WorkingDir,
	}
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
