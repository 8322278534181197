package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Rotation is how a new key takes the place of an old one. The zero Rotation is none; one without Create only says where the key is kept,
// which tells its age.
type Rotation struct {
	Token    Origin // authorises at the provider: env, file or exec
	Identify RotationStep
	Create   RotationStep
	Prove    RotationStep
	Store    []KeyStore
	Revoke   RotationStep
}

// RotationStep is a command or a request; the zero step is neither. What is in braces stands for a value of the rotation, see
// [RotationWord]; a command has the secrets in its environment.
type RotationStep struct {
	Command []string
	Request StepRequest
	Headers map[string]string // of the request
	Body    string            // JSON, unless a Content-Type header says that it is a form
	Value   string            // JSON pointer (RFC 6901) to the new key in the answer; empty: the whole answer is the key
	ID      string            // JSON pointer to the key's id
}

// StepRequest is what is asked for.
type StepRequest struct {
	Method string
	URL    string // https, or http to this machine
}

// IsZero reports that there is no such step.
func (s RotationStep) IsZero() bool { return len(s.Command) == 0 && s.Request.URL == "" }

// Uses tells whether the step mentions a word.
func (s RotationStep) Uses(word RotationWord) bool {
	return slices.ContainsFunc(s.texts(), func(text string) bool { return strings.Contains(text, string(word)) })
}

func (s RotationStep) texts() []string {
	texts := append(slices.Clone(s.Command), s.Request.URL, s.Body)
	for _, value := range s.Headers {
		texts = append(texts, value)
	}
	return texts
}

// KeyStore is a place where a key is kept: one of GitHub, Vault, File and Command.
type KeyStore struct {
	GitHub       string // name of an Actions secret
	Repository   string // of the secret: "self" or "owner/name"
	Environment  string // of the repository that has the secret; empty: the repository itself
	Organization string // that has the secret, instead of a repository
	Vault        string // PATH#FIELD of a KV v2 engine, with the "data/" of its API
	Address      string // URL of Vault
	File         string
	Command      []string
	Token        Origin // that may write there; the zero Origin: the usual variables
}

// RotationWord stands for a value in a step.
type RotationWord string

// The words. All but the ids are secrets.
const (
	WordToken RotationWord = "{token}"
	WordNew   RotationWord = "{new}"
	WordNewID RotationWord = "{new-id}"
	WordOld   RotationWord = "{old}"
	WordOldID RotationWord = "{old-id}"
)

// Secret reports a word that must not be where others can read it.
func (w RotationWord) Secret() bool { return w != WordNewID && w != WordOldID }

// rotationWord finds what looks like a word: an object of JSON has quotes behind its brace.
var rotationWord = regexp.MustCompile(`\{[a-z][a-z-]*\}`)

// parseDate reads a day, in UTC.
func parseDate(s string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return time.Time{}, errors.New("want a date such as 2026-03-31")
	}
	return t, nil
}

// parseStepRequest reads "METHOD URL".
func parseStepRequest(s string) (StepRequest, error) {
	method, address, _ := strings.Cut(s, " ")
	if err := CheckEndpoint(rotationWord.ReplaceAllString(address, "x")); err != nil {
		return StepRequest{}, err
	}
	return StepRequest{method, address}, nil
}

// checkWords refuses words that a step does not have, and secrets where they would be seen.
func (s RotationStep) checkWords(known []RotationWord) error {
	for _, text := range append(slices.Clone(s.Command), s.Request.URL) {
		for _, word := range rotationWord.FindAllString(text, -1) {
			if w := RotationWord(word); slices.Contains(known, w) && w.Secret() {
				return fmt.Errorf("%s would be seen in a command line or an address", word)
			}
		}
	}
	for _, text := range s.texts() {
		for _, word := range rotationWord.FindAllString(text, -1) {
			if !slices.Contains(known, RotationWord(word)) {
				return fmt.Errorf("there is no %s in this step", word)
			}
		}
	}
	return nil
}
