package link

import (
	"strings"
	"testing"
)

func TestCheckFiles(t *testing.T) {
	ca := []byte("pem")
	full := make([]File, MaxFiles)
	for i := range full {
		full[i].Name = strings.Repeat("n", i+1)
	}
	for name, tt := range map[string]struct {
		start Start
		want  bool
	}{
		"nothing":           {Start{}, true},
		"a file":            {Start{Files: []File{{Name: "policy.json", Content: []byte("{}")}}}, true},
		"a certificate":     {Start{Trust: &Trust{CA: ca, Bundles: []string{"/a"}}}, true},
		"as many as can be": {Start{Files: full}, true},

		"a copy":              {Start{Files: []File{{Name: "a", Copy: "/home/agent/.a/b"}}}, true},
		"a relative copy":     {Start{Files: []File{{Name: "a", Copy: "home/a"}}}, false},
		"a copy elsewhere":    {Start{Files: []File{{Name: "a", Copy: "/home/../etc/a"}}}, false},
		"a copy beside it":    {Start{Files: []File{{Name: "a", Copy: FilesDir + "/b"}}}, false},
		"a copy with a NUL":   {Start{Files: []File{{Name: "a", Copy: "/a\x00"}}}, false},
		"a private file":      {Start{Files: []File{{Name: "a", Copy: "/run/a", Private: true}}}, true},
		"a private one here":  {Start{Files: []File{{Name: "a", Private: true}}}, false},
		"no name":             {Start{Files: []File{{}}}, false},
		"a directory":         {Start{Files: []File{{Name: "a/b"}}}, false},
		"the parent":          {Start{Files: []File{{Name: ".."}}}, false},
		"a hidden name":       {Start{Files: []File{{Name: ".a"}}}, false},
		"a NUL":               {Start{Files: []File{{Name: "a\x00b"}}}, false},
		"a long name":         {Start{Files: []File{{Name: strings.Repeat("a", 101)}}}, false},
		"a name twice":        {Start{Files: []File{{Name: "a"}, {Name: "a"}}}, false},
		"a certificate's":     {Start{Files: []File{{Name: CAFile}}, Trust: &Trust{CA: ca}}, false},
		"too many":            {Start{Files: append(full, File{Name: "one-more"})}, false},
		"too large":           {Start{Files: []File{{Name: "a", Content: make([]byte, MaxFileBytes+1)}}}, false},
		"no certificate":      {Start{Trust: &Trust{}}, false},
		"a large certificate": {Start{Trust: &Trust{CA: make([]byte, MaxFileBytes)}}, false},
		"too many bundles":    {Start{Trust: &Trust{CA: ca, Bundles: make([]string, maxTrustPaths+1)}}, false},
		"too many extras":     {Start{Trust: &Trust{CA: ca, Extra: make([]string, maxTrustPaths+1)}}, false},
		"too many stores":     {Start{Trust: &Trust{CA: ca, Stores: make([]string, maxTrustPaths+1)}}, false},
	} {
		if err := tt.start.CheckFiles(); (err == nil) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFilesFitAFrame: what is allowed can also be sent.
func TestFilesFitAFrame(t *testing.T) {
	s := &Start{Files: []File{{Name: "a", Content: make([]byte, MaxFileBytes)}}}
	if err := s.CheckFiles(); err != nil {
		t.Fatal(err)
	}
	var sent strings.Builder
	if err := WriteFrame(&sent, Frame{Start: s}); err != nil {
		t.Error(err)
	}
}
