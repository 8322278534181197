//go:build !linux

package workspace

import "github.com/org/agent-sandbox/policy"

func (v *View) prepareOverlay() error {
	return unsupported(policy.ModeOverlay, "use mode copy", "it needs a Linux engine host")
}

// SharesPIDs reports false: descriptors are not passed by path here.
func SharesPIDs(string) bool { return false }
