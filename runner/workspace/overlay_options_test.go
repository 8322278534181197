package workspace

import (
	"strings"
	"testing"
)

func TestOverlayPath(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"/home/u/shop", "/home/u/shop"},
		{"/a,b", `/a\,b/.`},
		{"/a:b", `/a\:b`},
		{`/a\b`, `/a\\b`},
		{`/a\,b`, `/a\\\,b/.`},
		{"/x,ro", `/x\,ro/.`}, // without "/." the engine would take "ro" for a flag
		{"/new\nline", "/new\nline"},
	} {
		if got := overlayPath(tt.path); got != tt.want {
			t.Errorf("overlayPath(%q) = %q, want %q", tt.path, got, tt.want)
		}
	}
}

// The engine splits options at every comma, whatever stands before it, and takes out the pieces that are flags.
func TestNoPieceOfAnOverlayPathIsAFlag(t *testing.T) {
	for _, flag := range []string{"ro", "rw", "nosuid", "bind", "remount", "defaults"} {
		for _, path := range []string{"/p," + flag, "/p," + flag + ",q", "/p," + flag + `\`, "/" + flag + "," + flag} {
			opts, err := overlayOptions(path, path, path)
			if err != nil {
				t.Fatal(err)
			}
			for piece := range strings.SplitSeq(opts, ",") {
				if piece == flag {
					t.Errorf("overlayOptions(%q) = %q, which the engine reads as the flag %q", path, opts, flag)
				}
			}
		}
	}
}

func TestOverlayOptionsRefuses(t *testing.T) {
	for _, path := range []string{"/" + strings.Repeat("long/", 1000), "/not\xffutf8"} {
		if opts, err := overlayOptions(path, "/u", "/w"); err == nil {
			t.Errorf("overlayOptions(%.20q...) = %q, want an error", path, opts)
		}
	}
}
