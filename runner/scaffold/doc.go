// Package scaffold looks at a project and writes the files that it needs to be worked on in a sandbox: the policy, a
// Dockerfile where the usual image lacks the project's tools, the workflow, and the trust policy for the broker.
//
// A project is untrusted: it is read through [os.Root], bounded, and nothing of it is executed. What it says decides which of our own
// lines are written; its texts get into a file only as names that were checked.
package scaffold
