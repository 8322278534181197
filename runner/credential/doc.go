// Package credential obtains the secrets that a run may use, and makes for each a placeholder that is inside in its stead.
// It refuses a secret that it can't tell where to send, one that reaches further than the run has any use for, and one
// that would get inside by another way, unless the policy wants it there. What is issued for the run it renews and gives back; until then a file
// outside of the runs' directory has it, so that it can be revoked after a kill. It attaches nothing to requests: package egress does.
package credential
