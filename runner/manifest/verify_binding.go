package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/org/agent-sandbox/runner/event"
)

// bound compares the files at hand with what the statement says of them.
func (v *verification) bound() {
	var checked []string
	var problems []error
	note := func(what string, err error) {
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			problems = append(problems, fmt.Errorf("%s: %w", what, err))
		default:
			checked = append(checked, what)
		}
	}
	for _, a := range v.accept.Artifacts {
		note(a.Name, v.isSubject("sha256", a.SHA256))
	}
	for _, id := range v.accept.Trees {
		note("tree "+id, v.isSubject(digestTree, id))
	}
	if v.accept.Files != nil {
		note("events.jsonl", v.events())
		p := v.report.Statement.Predicate
		if w := p.Workspace; w != nil {
			note(SubjectPatch, v.file(SubjectPatch, w.PatchSHA256))
			note("changes.json", v.file("changes.json", w.ChangesSHA256))
		}
		for _, l := range p.Logs {
			note(l.Stream+".log", v.file(l.Stream+".log", l.SHA256))
		}
	}
	switch {
	case len(problems) > 0:
		v.say(AxisBinding, Failed, errors.Join(problems...).Error())
	case len(checked) == 0:
		v.say(AxisBinding, Skipped, "no file of the run is at hand")
	default:
		v.say(AxisBinding, Passed, strings.Join(checked, ", "))
	}
}

func (v *verification) isSubject(algorithm, digest string) error {
	for _, s := range v.report.Statement.Subject {
		if s.Digest[algorithm] == digest {
			return nil
		}
	}
	return errors.New("it is not a subject of this manifest")
}

// events reads the whole log: each line has the digest of the one before, and the last is the head.
func (v *verification) events() error {
	f, err := v.accept.Files.Open("events.jsonl")
	if err != nil {
		return err
	}
	defer f.Close()
	want := v.report.Statement.Predicate.Events
	head, err := event.ReadChain(f, v.report.Statement.Predicate.Run, func(event.Envelope) error { return nil })
	var broken *event.ChainError
	if err != nil && !(errors.As(err, &broken) && want.State != "complete") {
		return err
	}
	return head.Compare(event.Head{Hash: want.Head, Count: want.Count})
}

// file compares a digest. One that the statement does not have is of a file that the run did not leave.
func (v *verification) file(name, want string) error {
	f, err := v.accept.Files.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if want == "" {
		return errors.New("it is there, and the manifest knows nothing of it")
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != strings.TrimPrefix(want, "sha256:") {
		return errors.New("it is not the file that the manifest is about")
	}
	return nil
}
