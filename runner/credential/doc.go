// Package credential obtains the secrets that a run may use, and makes for each a placeholder that is inside in its stead.
// It refuses a secret that it can't tell where to send, one that reaches further than the run has any use for, and one
// that would get inside by another way. It sends nothing and stores nothing.
package credential
