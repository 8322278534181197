package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
)

// SBOM is the list of the packages in an image, in CycloneDX's form (https://cyclonedx.org/docs/1.5/json/). It holds neither
// a time nor a serial number: the same image has the same list.
type SBOM struct {
	BOMFormat   string      `json:"bomFormat"`
	SpecVersion string      `json:"specVersion"`
	Version     int         `json:"version"`
	Components  []Component `json:"components"`
}

// Component is one package.
type Component struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	PURL    string `json:"purl"` // https://github.com/package-url/purl-spec
	// Properties say where in the image the package was found.
	Properties []Property `json:"properties,omitempty"`
}

// Property is a name with a value.
type Property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// JSON is the list as it is written to a file.
func (s *SBOM) JSON() []byte {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic("image: a list of packages has no JSON: " + err.Error())
	}
	return append(b, '\n')
}

// Digest is the digest of JSON.
func (s *SBOM) Digest() string { return digestOf(s.JSON()) }

// VersionsOf are the versions of those packages of npm that are in the image, by what names says they are called. Packages that are installed
// under another name than their own don't count: so are those for one platform.
func (s *SBOM) VersionsOf(names map[string]string) map[string]string {
	found := map[string]string{}
	for _, c := range s.Components {
		if name, ok := names[c.Name]; ok && strings.HasPrefix(c.PURL, "pkg:npm/") && strings.HasSuffix(c.where(), "/node_modules/"+c.Name) {
			found[name] = c.Version
		}
	}
	return found
}

// Bounds of what is looked at for the list of packages.
const (
	maxStatus     = 64 << 20 // bytes of dpkg's database
	maxPackage    = 4 << 20  // bytes of a package.json
	maxComponents = 200_000
)

// readSBOM finds the packages of Debian, npm and Go in a tree.
func readSBOM(root *node) (*SBOM, error) {
	s := &SBOM{BOMFormat: "CycloneDX", SpecVersion: "1.5", Version: 1, Components: []Component{}}
	err := root.walk("", func(name string, n *node) error {
		if n.kind != tar.TypeReg {
			return nil
		}
		var err error
		switch {
		case name == "var/lib/dpkg/status", path.Dir(name) == "var/lib/dpkg/status.d":
			err = s.addDebian(n)
		case path.Base(name) == "package.json" && isModule(path.Dir(name)):
			err = s.addNode(name, n)
		case n.mode&0o111 != 0:
			err = s.addGo(name, n)
		}
		if err == nil && len(s.Components) > maxComponents {
			err = fmt.Errorf("more than %d packages", maxComponents)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the image's packages: %w", err)
	}
	slices.SortFunc(s.Components, func(a, b Component) int {
		return cmp.Or(strings.Compare(a.PURL, b.PURL), strings.Compare(a.where(), b.where()))
	})
	return s, nil
}

func (c Component) where() string {
	if len(c.Properties) == 0 {
		return ""
	}
	return c.Properties[0].Value
}

func (s *SBOM) add(kind, name, version, qualifiers, where string) {
	c := Component{Type: "library", Name: name, Version: version}
	c.PURL = "pkg:" + kind + "/" + strings.ReplaceAll(name, "@", "%40")
	if version != "" {
		c.PURL += "@" + url.PathEscape(version)
	}
	c.PURL += qualifiers
	if where != "" {
		c.Properties = []Property{{"agent-sandbox:path", "/" + where}}
	}
	s.Components = append(s.Components, c)
}

// addDebian reads dpkg's database: paragraphs of fields (deb822(5)).
func (s *SBOM) addDebian(n *node) error {
	b, err := n.read(maxStatus)
	if err != nil {
		return err
	}
	for paragraph := range strings.SplitSeq(string(b), "\n\n") {
		field := map[string]string{}
		for line := range strings.Lines(paragraph) {
			if key, value, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, " ") {
				field[key] = strings.TrimSpace(value)
			}
		}
		if status := field["Status"]; field["Package"] == "" || status != "" && !strings.HasSuffix(status, " installed") {
			continue
		}
		s.add("deb/debian", field["Package"], field["Version"], "?arch="+field["Architecture"], "")
		s.Components[len(s.Components)-1].PURL = strings.TrimSuffix(s.Components[len(s.Components)-1].PURL, "?arch=")
	}
	return nil
}

// isModule tells whether a directory is where npm puts a package.
func isModule(dir string) bool {
	up := path.Dir(dir)
	return path.Base(up) == "node_modules" || strings.HasPrefix(path.Base(up), "@") && path.Base(path.Dir(up)) == "node_modules"
}

func (s *SBOM) addNode(name string, n *node) error {
	if n.size > maxPackage {
		return nil
	}
	b, err := n.read(maxPackage)
	if err != nil {
		return err
	}
	var p struct {
		Name    any `json:"name"`
		Version any `json:"version"`
	}
	if json.Unmarshal(b, &p) != nil {
		return nil // a fixture in some package: npm would not take it either
	}
	pkg, _ := p.Name.(string)
	version, _ := p.Version.(string)
	if pkg != "" {
		s.add("npm", pkg, version, "", path.Dir(name))
	}
	return nil
}

// addGo reads what the linker of Go wrote into a program about its modules.
func (s *SBOM) addGo(name string, n *node) error {
	r, err := n.open()
	if err != nil {
		return err
	}
	defer r.Close()
	magic, err := bufio.NewReaderSize(r, 16).Peek(4)
	if err != nil || !bytes.Equal(magic, []byte("\x7fELF")) {
		return nil // too short for a program, or none; what can't be read was told when the layer was
	}
	at, closer, err := n.readerAt()
	if err != nil {
		return err
	}
	defer closer.Close()
	info, err := buildinfo.Read(at)
	if err != nil {
		return nil // not of Go
	}
	if info.Main.Path != "" {
		s.add("golang", info.Main.Path, info.Main.Version, "", name)
	}
	s.add("golang", "stdlib", strings.TrimPrefix(info.GoVersion, "go"), "", name)
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		s.add("golang", d.Path, d.Version, "", name)
	}
	return nil
}

// readerAt is open for those who read in any order.
func (n *node) readerAt() (io.ReaderAt, io.Closer, error) {
	if n.content != nil {
		return bytes.NewReader(n.content), io.NopCloser(nil), nil
	}
	f, err := os.Open(n.at.file)
	if err != nil {
		return nil, nil, err
	}
	return io.NewSectionReader(f, n.at.offset, n.size), f, nil
}
