package link

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// FilesDir is where the sandbox's own files are inside: a file system of its own, which belongs to root.
const FilesDir = "/run/agent-sandbox"

// What the guest writes of Start.Trust, below FilesDir.
const (
	CAFile     = "ca.crt"        // the run's certificate, and what Trust.Extra has, in PEM
	BundleFile = "ca-bundle.crt" // those, and every certificate that the image and Trust.Bundles have, in PEM
	StoreFile  = "ca.jks"        // those, and what Trust.Stores have, as a Java key store
	// StorePassword is that of StoreFile. It protects nothing: Java's tools want one.
	StorePassword = "changeit"
)

const (
	// MaxFiles is how many files a Start may have.
	MaxFiles = 16
	// MaxFileBytes bounds the content of all of them together, so that they fit into one frame.
	MaxFileBytes = 512 << 10
	// maxTrustPaths bounds each list of a Trust.
	maxTrustPaths = 32
)

// File is a file that the guest writes into FilesDir. Everybody inside can read it and, root aside, nobody can change it.
type File struct {
	Name    string `json:"name"`
	Content []byte `json:"content"`
	// After names a file inside whose content comes first if there is one, so that a setting is added to those of the
	// image. It is read with the agent's rights.
	After string `json:"after,omitempty"`
	// Copy is where the agent gets one of its own, to change as it likes: an absolute path, which the guest makes with the agent's
	// rights. What is there already stays.
	Copy string `json:"copy,omitempty"`
	// Private leaves the copy alone, for the agent's eyes (mode 0400): nothing is in FilesDir. What is there already is an error.
	Private bool `json:"private,omitempty"`
}

// Trust has the guest put together the certificates that the programs inside are to trust. It reads the files that are
// named here, and the image's own, with the agent's rights.
type Trust struct {
	CA []byte `json:"ca"` // the run's own certificate, in PEM
	// Bundles, Extra and Stores are files inside that the environment named before, in PEM or as Java key stores. See the
	// names of the files for which goes where.
	Bundles []string `json:"bundles,omitempty"`
	Extra   []string `json:"extra,omitempty"`
	Stores  []string `json:"stores,omitempty"`
}

// Trusted is what the guest made of a Trust.
type Trusted struct {
	Certificates int      `json:"certificates"`      // in BundleFile
	Sources      []string `json:"sources"`           // the files inside that they come from
	Missing      []string `json:"missing,omitempty"` // why a file that was named gave none
}

// CheckFiles tells whether the guest can write what s asks for.
func (s *Start) CheckFiles() error {
	if len(s.Files) > MaxFiles {
		return fmt.Errorf("%d files, and at most %d are possible", len(s.Files), MaxFiles)
	}
	taken := map[string]bool{}
	if s.Trust != nil {
		taken = map[string]bool{CAFile: true, BundleFile: true, StoreFile: true}
		if err := s.Trust.check(); err != nil {
			return err
		}
	}
	size := 0
	for _, f := range s.Files {
		if f.Name == "" || f.Name[0] == '.' || strings.ContainsAny(f.Name, "/\x00") || len(f.Name) > 100 || taken[f.Name] {
			return fmt.Errorf("a file can't have the name %q", f.Name)
		}
		if f.Copy != "" && (!path.IsAbs(f.Copy) || path.Clean(f.Copy) != f.Copy || strings.HasPrefix(f.Copy, FilesDir+"/") || strings.ContainsRune(f.Copy, 0)) {
			return fmt.Errorf("a file can't be copied to %q", f.Copy)
		}
		if f.Private && (f.Copy == "" || f.After != "") {
			return fmt.Errorf("the private file %q needs a place of its own, and nothing before it", f.Name)
		}
		taken[f.Name] = true
		size += len(f.Content)
	}
	if size > MaxFileBytes {
		return fmt.Errorf("%d bytes of files, and at most %d are possible", size, MaxFileBytes)
	}
	return nil
}

func (t *Trust) check() error {
	switch {
	case len(t.CA) == 0:
		return errors.New("a certificate to trust is missing")
	case len(t.CA) > MaxFileBytes/8:
		return fmt.Errorf("a certificate of %d bytes", len(t.CA))
	case len(t.Bundles) > maxTrustPaths || len(t.Extra) > maxTrustPaths || len(t.Stores) > maxTrustPaths:
		return fmt.Errorf("more than %d files of certificates", maxTrustPaths)
	}
	return nil
}
