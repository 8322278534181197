package runner

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/workspace"
)

// maxFound bounds the warnings for files with a secret; the counts have all of them.
const maxFound = 50

// searchChanges warns of each file in which the agent left a secret. With `deliver: inject` none can be there. The change set is not
// altered: it is what the agent made, and a patch with something else in it would break what it changes.
func (r *run) searchChanges(cs *workspace.ChangeSet, blobs workspace.Blobs) error {
	if r.secrets.set.IsEmpty() {
		return nil
	}
	warned := 0
	for i := range cs.Changes {
		c := &cs.Changes[i]
		names, err := r.secretsOf(c, blobs)
		if err != nil {
			return fmt.Errorf("search %q for secrets: %w", c.Path, err)
		}
		for _, name := range names {
			if warned++; warned > maxFound {
				continue
			}
			r.rec.Emit(event.Warning{
				Message: fmt.Sprintf("the credential %s is in %s; the patch has it as it is", name, event.Printable(c.Path)),
				Mend:    "do not publish the change, and replace the credential",
			})
		}
	}
	if warned > maxFound {
		r.warn(fmt.Sprintf("credentials are in %d more files of the change set", warned-maxFound))
	}
	return nil
}

// secretsOf are the names of the credentials in a changed file, its path or its target.
func (r *run) secretsOf(c *workspace.Change, blobs workspace.Blobs) (names []string, err error) {
	counted := r.secrets.counted(event.RedactedChanges)
	found := func(name string) {
		counted(name)
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	r.secrets.set.Redact(c.Path, found)
	if c.New == nil {
		return names, nil
	}
	r.secrets.set.Redact(c.New.Target, found)
	if c.New.Type != workspace.File || !blobs.Has(c.New.SHA256) { // the same content as before
		return names, nil
	}
	content, err := blobs.Open(c.New.SHA256)
	if err != nil {
		return names, err
	}
	w := r.secrets.set.NewWriter(io.Discard, found)
	_, err = io.Copy(w, content)
	return names, errors.Join(err, w.Close(), content.Close())
}
