//go:build weakguest

package guest

import (
	"os"
	"slices"
	"strings"
)

// weakened names, separated by commas, the protections that are left out. The guest that people get is built without
// the tag weakguest, and knows no such variable.
const weakened = "AGENT_SANDBOX_WEAKENED"

func skip(protection string) bool {
	return slices.Contains(strings.Split(os.Getenv(weakened), ","), protection)
}

func agentEnv() []string { return []string{weakened + "=" + os.Getenv(weakened)} }
