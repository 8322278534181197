// Package policy reads the policy file of a project and answers what it allows.
//
// It is pure: [Load] gets the bytes of the file, [Policy.Decide] is a function of its arguments, and nothing here
// opens a file, a socket or the environment. It refuses what it does not understand: a file with an unknown key, a
// bare "yes" or a misspelt host gives no policy at all, but every problem with its line and column.
//
// The keys, their types and their descriptions stand in one table (table.go). The loader and the JSON schema
// are both made from it, so they can't differ.
package policy
