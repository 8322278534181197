// Package rotate knows how old the secrets are that somebody keeps, and replaces them: a new key is made and proved, stored wherever the
// old one was, and only then the old one is revoked. It never counts an unknown age as young, writes no secret to disk but into the places that the
// policy names, and starts nothing before it has found those places and what they have now.
package rotate
