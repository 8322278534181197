// Package manifest makes the signed evidence of a run: an in-toto Statement (https://in-toto.io/Statement/v1) with a
// predicate of our own, in a DSSE envelope or a sigstore bundle. It is made from the run's record, after the agent has ended, and
// nothing that the agent sent is taken for more than a bounded piece of text. What is not known is marked as missing, never guessed.
//
// The types of this package are the format: their comments and tags are the schema ([Schema]) and docs/manifest.md, and a test holds
// the three together. Fields are added, never renamed or removed; a change that a reader would misread gets another [PredicateType].
//
// The package takes no decision about a run, and reads no environment.
package manifest
