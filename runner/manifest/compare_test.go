package manifest

import "testing"

// TestCompareSeesEachDifference: two runs are the same only if every part of them is.
func TestCompareSeesEachDifference(t *testing.T) {
	base := decoded(t, fullInput(t))
	for _, c := range Compare(base, base) {
		if !c.Same {
			t.Errorf("the control differs: %+v", c)
		}
	}
	for what, change := range map[string]func(*Predicate){
		"command":   func(p *Predicate) { p.Invocation.CommandSHA256 = "x" },
		"commit":    func(p *Predicate) { p.Source = nil },
		"image":     func(p *Predicate) { p.Environment.Image = nil },
		"engine":    func(p *Predicate) { p.Environment.Engine = nil },
		"runner":    func(p *Predicate) { p.Environment.Runner.SHA256 = "x" },
		"policy":    func(p *Predicate) { p.Policy.Digest = "x" },
		"isolation": func(p *Predicate) { p.Isolation.Verified = false },
		"hosts":     func(p *Predicate) { p.Egress.Hosts = nil },
		"refused":   func(p *Predicate) { p.Egress.Refused = nil },
		"changes":   func(p *Predicate) { p.Workspace = &Workspace{Added: 77, PatchSHA256: p.Workspace.PatchSHA256} },
		"patch":     func(p *Predicate) { w := *p.Workspace; w.PatchSHA256 = "x"; p.Workspace = &w },
		"outcome":   func(p *Predicate) { p.Outcome.ExitCode = 1 },
		"time":      func(p *Predicate) { p.Outcome.DurationNS = 1 },
	} {
		other := base
		change(&other)
		for _, c := range Compare(base, other) {
			if c.Same != (c.What != what) {
				t.Errorf("%s changed, and of %s it is said that same is %v", what, c.What, c.Same)
			}
		}
	}
}
