package image

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/org/agent-sandbox/runner/engine"
)

// Verification is what rebuilding a locked image showed.
type Verification struct {
	Locked string `json:"locked"` // digest that the lock names
	Built  string `json:"built"`  // digest of the rebuilt image
	// Inputs say which of the lock's inputs are not what they were.
	Inputs []string `json:"inputs"`
	// Present is the digest or id of the image that the engine has under the locked one's name, and that the rebuilt one
	// was compared with; empty if the engine has none.
	Present     string       `json:"present,omitempty"`
	Differences []Difference `json:"differences"`
}

// OK tells that the image can be rebuilt to the locked digest, and that the engine's image, if it has one, is that.
func (v *Verification) OK() bool {
	return v.Built == v.Locked && len(v.Inputs) == 0 && len(v.Differences) == 0
}

// As is a builder that builds as the lock says: with its date, and without a network if it had none.
func (b *Builder) As(r *Recipe) *Builder {
	c := *b
	c.Epoch, c.Offline = time.Unix(r.Epoch, 0), b.Offline || r.Offline
	return &c
}

// Verify builds a locked image anew, without the cache and with the lock's date, and compares.
func (b *Builder) Verify(ctx context.Context, in *Inputs, e Entry) (*Verification, error) {
	if e.Build == nil {
		return nil, errors.New("only an image that is built can be rebuilt")
	}
	anew := b.As(e.Build)
	anew.NoCache = true
	v := &Verification{Locked: e.Digest, Inputs: changedInputs(in, e.Build), Differences: []Difference{}}
	err := anew.build(ctx, in, func(dir string, n *normal, r *Result) error {
		v.Built = r.Digest
		if v.Built != v.Locked { // engines with another store call a base otherwise; the result tells that it is the same
			v.Inputs = append(v.Inputs, changedBases(e.Build.Bases, r.Bases)...)
		}
		present, err := b.present(ctx, e)
		if v.Present = present; err != nil || present == "" || present == n.ID() || present == n.Digest() {
			return err
		}
		v.Differences, err = b.differences(ctx, dir, n, present)
		return err
	})
	return v, err
}

// present is the id of the image that the engine has under the name of the lock's inputs, else of the locked image itself.
func (b *Builder) present(ctx context.Context, e Entry) (string, error) {
	for _, name := range append([]string{Tag(e.Build.Inputs)}, e.Digests()...) {
		img, err := b.Engine.Image(ctx, name)
		if err == nil {
			return img.ID, nil
		}
		if !errors.Is(err, engine.ErrNoImage) {
			return "", err
		}
	}
	return "", nil
}

func (b *Builder) differences(ctx context.Context, dir string, n *normal, id string) ([]Difference, error) {
	dir = filepath.Join(dir, "present")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	s, err := b.fetch(ctx, dir, id)
	if err != nil {
		return nil, err
	}
	locked, err := viewOf(s.config, s.layers)
	if err != nil {
		return nil, err
	}
	built, err := viewOf(n.settings, n.layers)
	if err != nil {
		return nil, err
	}
	all := compare(locked, built)
	if all == nil {
		all = []Difference{}
	}
	return all, nil
}

// RecipeOf says what an image is built from.
func RecipeOf(in *Inputs, r *Result) *Recipe {
	return &Recipe{
		Dockerfile: in.dockerfileDigest(), Context: in.contextDigest(), Args: in.Args, Agents: in.Agents, Inputs: r.Inputs, Bases: r.Bases,
		Epoch: r.Epoch.Unix(), Offline: r.Offline,
	}
}

// changedInputs says what of the inputs is not as the lock has it.
func changedInputs(in *Inputs, r *Recipe) []string {
	all := []string{}
	if in.dockerfileDigest() != r.Dockerfile {
		all = append(all, "the Dockerfile was edited after the lock")
	}
	if in.contextDigest() != r.Context {
		all = append(all, "a file that the Dockerfile copies was changed after the lock")
	}
	all = append(all, changedAgents(in.Agents, r.Agents)...)
	if !maps.Equal(in.Args, r.Args) {
		all = append(all, "the build arguments are others than the lock's")
	}
	if len(all) == 0 && in.Digest() != r.Inputs {
		all = append(all, "the lock is of another version of agent-sandbox, or was altered")
	}
	return all
}

// changedAgents compares what this program installs with what the lock says.
func changedAgents(is, was map[string]AgentLock) []string {
	names := maps.Clone(was)
	if names == nil {
		names = map[string]AgentLock{}
	}
	maps.Copy(names, is)
	var all []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		a, now := is[name]
		b, before := was[name]
		switch {
		case !before:
			all = append(all, fmt.Sprintf("the agent %s is not in the lock", name))
		case !now:
			all = append(all, fmt.Sprintf("the agent %s is in the lock, and not wanted any more", name))
		case a.Version != b.Version:
			all = append(all, fmt.Sprintf("the agent %s is %s by its kit, and %s in the lock", name, a.Version, b.Version))
		case a.Lock != b.Lock:
			all = append(all, fmt.Sprintf("what is installed for the agent %s %s is not what the lock has", name, a.Version))
		}
	}
	return all
}

// ChangedInputs says what of the inputs is not as the entry has it; empty if nothing.
func (e Entry) ChangedInputs(in *Inputs) []string {
	if e.Build == nil {
		return nil
	}
	return changedInputs(in, e.Build)
}

func changedBases(was, is []Base) []string {
	digests := map[string]string{}
	for _, b := range was {
		digests[b.Reference] = b.Digest
	}
	var all []string
	for _, b := range is {
		if old := digests[b.Reference]; old != b.Digest {
			all = append(all, fmt.Sprintf("the base %s is %s, the lock has %s", b.Reference, b.Digest, old))
		}
	}
	return all
}
