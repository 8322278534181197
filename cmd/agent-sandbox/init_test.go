package main

import "testing"

// A workflow names a release that there is, or the latest: what was built in between has no tag.
func TestRelease(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "v1.2.3", "1.2.3": "v1.2.3", "v1.2.3-rc.1": "v1.2.3-rc.1",
		"dev": "", "unknown": "", "c4c1061-dirty": "", "v1.2.3-4-gc4c1061": "", "v1.2.3-dirty": "", "": "", "1.2.3; rm": "",
	} {
		if got := release(version); got != want {
			t.Errorf("release(%q) = %q, want %q", version, got, want)
		}
	}
}
