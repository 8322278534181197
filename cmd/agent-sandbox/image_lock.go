package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/image"
)

func (a *app) imageLockCommand() *cobra.Command {
	f := imageFlags{anew: true}
	c := &cobra.Command{
		Use:   "lock [flags]",
		Short: "Write down which image the policy's reference means",
		Long: `lock resolves the policy's image and writes ` + image.LockFile + ` beside the policy: its digest and
platform, when and from what it was resolved, and for an image that is built the digests of its
inputs and of the list of packages in it. Commit the file: "run" then uses that very image, and
in CI, or with --locked, refuses any other.

An image that the engine has is taken as it is; --pull asks its registry for the present one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.imageLock(cmd.Context(), f) },
	}
	f.register(c)
	f.registerArgs(c)
	c.Flags().BoolVar(&f.pull, "pull", false, "ask the registry for the image that the reference means now")
	return c
}

// lockedJSON is `image lock --json`: a contract, to which fields are only added.
type lockedJSON struct {
	File    string      `json:"file"`
	Written bool        `json:"written"` // false: it said the same before
	Lock    *image.Lock `json:"lock"`
}

func (a *app) imageLock(ctx context.Context, f imageFlags) (err error) {
	j, err := a.job(ctx, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	w := wishOf(j.policy)
	key := w.key(j.project)
	var e image.Entry
	if w.isBuilt() {
		e, err = j.lockBuild(ctx, w, f)
	} else {
		e, err = j.lockReference(ctx, key, f.pull)
	}
	if err != nil {
		return err
	}
	before, err := j.lockText()
	if err != nil {
		return err
	}
	if old, ok := j.lock.Images[key]; ok && old.Same(e) {
		e = old // when it was resolved first
	}
	j.lock.Images = map[string]image.Entry{key: e} // nothing else is the policy's any more
	after := string(j.lock.JSON())
	out := lockedJSON{File: displayPath(j.lockFile), Written: before != after, Lock: j.lock}
	if out.Written {
		if err := j.lock.WriteFile(j.lockFile); err != nil {
			return err
		}
	}
	switch {
	case f.json:
		return a.answerJSON(out)
	case !out.Written:
		return a.answer(func(w io.Writer) error { _, err := fmt.Fprintf(w, "%s is up to date\n", out.File); return err })
	}
	return a.answer(func(w io.Writer) error {
		_, err := io.WriteString(w, printableText(unifiedDiff(out.File, before, after)))
		return err
	})
}

// lockText is the lock file as it is, to show what changes.
func (j *imageJob) lockText() (string, error) {
	b, err := readLimited(j.lockFile, image.MaxLock)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

func (j *imageJob) lockReference(ctx context.Context, reference string, pull bool) (image.Entry, error) {
	img, err := j.engine.Image(ctx, reference)
	if pull || errors.Is(err, engine.ErrNoImage) && !strings.HasPrefix(reference, "sha256:") {
		err = j.engine.Pull(ctx, reference, j.progress.line)
		if j.progress.end(err); err == nil {
			img, err = j.engine.Image(ctx, reference)
		}
	}
	if err != nil {
		return image.Entry{}, err
	}
	e := image.Entry{
		Digest: image.DigestOf(img), ID: img.ID, Platform: img.OS + "/" + img.Arch, From: image.FromEngine, Resolved: now(),
	}
	if img.Digest() != "" {
		e.From = image.FromRegistry
	}
	return e, nil
}

func (j *imageJob) lockBuild(ctx context.Context, w wish, f imageFlags) (image.Entry, error) {
	src, err := j.source(w, f)
	if err != nil {
		return image.Entry{}, err
	}
	in, r, err := j.build(ctx, src)
	if err != nil {
		return image.Entry{}, err
	}
	return image.Entry{
		Digest: r.Digest, ID: r.ID, Platform: "linux/" + r.Arch, From: image.FromBuild, Resolved: now(),
		Build: image.RecipeOf(in, r), Agents: r.SBOM.VersionsOf(agentPackages()), SBOM: r.SBOM.Digest(),
	}, nil
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// agentPackages are the packages of npm that are coding agents, with the names of their kits.
func agentPackages() map[string]string {
	names := map[string]string{}
	for _, name := range policy.Installable() {
		k, _ := policy.LookupKit(name)
		names[k.Install.Package] = name
	}
	return names
}

func (a *app) imageVerifyCommand() *cobra.Command {
	var f imageFlags
	c := &cobra.Command{
		Use:   "verify [flags]",
		Short: "Rebuild the locked image and compare",
		Long: `verify builds the locked image anew, without the cache, and compares digests. Where the engine has an
image under the locked one's name, and it is another than the rebuilt one, it lists what differs:
each file with its layer and the reason, such as content, mode, owner or time.

An image that is not built, but comes from a registry, is compared with what the engine has.

Exit status: 0 if all is as locked, 1 if anything differs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.imageVerify(cmd.Context(), f) },
	}
	f.register(c)
	return c
}

// verifiedJSON is `image verify --json`: a contract, to which fields are only added.
type verifiedJSON struct {
	Image string `json:"image"`
	OK    bool   `json:"ok"`
	image.Verification
}

func (a *app) imageVerify(ctx context.Context, f imageFlags) (err error) {
	j, err := a.job(ctx, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	w := wishOf(j.policy)
	key := w.key(j.project)
	e, ok := j.lock.Images[key]
	if !ok {
		return fmt.Errorf("%s has no entry for %s\nhint: `agent-sandbox image lock` writes one", displayPath(j.lockFile), w)
	}
	v, err := j.verify(ctx, w, e, f)
	if err != nil {
		return err
	}
	out := verifiedJSON{key, v.OK(), *v}
	if f.json {
		err = a.answerJSON(out)
	} else {
		err = a.answer(func(w io.Writer) error { return printVerified(w, out) })
	}
	if err == nil && !out.OK {
		err = &statusError{code: exitError}
	}
	return err
}

func (j *imageJob) verify(ctx context.Context, w wish, e image.Entry, f imageFlags) (*image.Verification, error) {
	if e.Build == nil {
		img, err := j.engine.Image(ctx, w.base)
		if err != nil {
			return nil, err
		}
		v := &image.Verification{Locked: e.Digest, Built: image.DigestOf(img), Present: img.ID, Inputs: []string{}, Differences: []image.Difference{}}
		if slices.Contains(e.Digests(), img.ID) {
			v.Built = e.Digest
		}
		return v, nil
	}
	src, err := j.source(w, f)
	if err != nil {
		return nil, err
	}
	in, err := image.ReadInputs(src)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	v, err := j.builder.Verify(ctx, in, e)
	j.progress.end(err)
	return v, err
}

// printVerified tells people what differs. Names in an image may be anything.
func printVerified(w io.Writer, out verifiedJSON) error {
	var b strings.Builder
	if out.OK {
		fmt.Fprintf(&b, "%s: as locked, %s\n", out.Image, out.Locked)
		_, err := io.WriteString(w, printableText(b.String()))
		return err
	}
	fmt.Fprintf(&b, "%s: not as locked\n  locked   %s\n  rebuilt  %s\n", out.Image, out.Locked, out.Built)
	if out.Present != "" {
		fmt.Fprintf(&b, "  engine   %s\n", out.Present)
	}
	for _, text := range out.Inputs {
		fmt.Fprintf(&b, "  input    %s\n", text)
	}
	count := map[image.Reason]int{}
	for _, d := range out.Differences {
		what := d.Path
		if !slices.Contains(d.Why, image.ReasonConfig) {
			what = strings.TrimSpace(fmt.Sprintf("%s (layer %d)", d.Path, d.Layer))
		}
		fmt.Fprintf(&b, "%s: %s\n", what, reasonsOf(d))
		if d.Locked != "" {
			fmt.Fprintf(&b, "  - %s\n", d.Locked)
		}
		if d.Built != "" {
			fmt.Fprintf(&b, "  + %s\n", d.Built)
		}
		for _, why := range d.Why {
			count[why]++
		}
	}
	if len(out.Differences) == 0 {
		b.WriteString("the engine has no image under the locked one's name to compare with: only the digests are known to differ\n")
	} else {
		var parts []string
		for _, why := range slices.Sorted(maps.Keys(count)) {
			parts = append(parts, fmt.Sprintf("%d %s", count[why], why))
		}
		fmt.Fprintf(&b, "- is the engine's image, + the rebuilt one: %s\n", strings.Join(parts, ", "))
	}
	_, err := io.WriteString(w, printableText(b.String()))
	return err
}

func reasonsOf(d image.Difference) string {
	var parts []string
	for _, why := range d.Why {
		parts = append(parts, string(why))
	}
	return strings.Join(parts, ", ")
}
