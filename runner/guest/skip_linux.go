//go:build !weakguest

package guest

// skip tells whether a protection is to be left out, which it never is. The escape suite has a guest of its own in
// which protections can be named, to show that each one is needed: see skip_weak_linux.go.
func skip(string) bool { return false }

// agentEnv is the environment of the process that becomes the agent, until it does.
func agentEnv() []string { return []string{} }
