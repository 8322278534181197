package policy

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestServices: every row can be used as it is, and says where it comes from.
func TestServices(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range Services() {
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
		s, ok := LookupService(name)
		if !ok || len(s.Env) == 0 || len(s.Attach) == 0 || !slices.Contains(s.Names, name) {
			t.Fatalf("LookupService(%q) = %+v, %t", name, s, ok)
		}
		if !regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`).MatchString(name) {
			t.Errorf("no credential can be called %q", name)
		}
		for _, a := range s.Attach {
			if len(a.Hosts) == 0 || a.Header == "" || !slices.Contains([]string{"bearer", "basic", "raw"}, a.Scheme) || (a.Username != "") != (a.Scheme == "basic") {
				t.Errorf("%s is attached by %+v", name, a)
			}
			if !strings.HasPrefix(a.Source, "https://") {
				t.Errorf("%s has the source %q", name, a.Source)
			}
			for _, h := range a.Hosts {
				if h.IsWildcard() || h.Addr().IsValid() {
					t.Errorf("%s goes to %s, which is more than one host or none", name, h)
				}
			}
		}
	}
	if s, ok := LookupService("nonesuch"); ok {
		t.Errorf("LookupService(nonesuch) = %+v", s)
	}
}
