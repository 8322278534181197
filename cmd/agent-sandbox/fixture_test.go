package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// scriptMakeRun is "mkrun ID HOW BEFORE AFTER COMMAND...": it leaves a run of COMMAND in the state directory whose
// agent found the project BEFORE and left AFTER. HOW is success, failure, error (ours), interrupted (the runner died),
// or running (until the script ends).
func scriptMakeRun(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 5 {
		ts.Fatalf("usage: mkrun ID HOW BEFORE AFTER COMMAND...")
	}
	id, err := runs.ParseID(args[0])
	ts.Check(err)
	// A child that another script forks meanwhile has our files until it execs, and with them the run's lock.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	store, err := runs.Open(filepath.Join(ts.Getenv("XDG_STATE_HOME"), "agent-sandbox", "runs"))
	ts.Check(err)
	ts.Defer(func() { store.Close() })
	r, err := store.Create(id)
	ts.Check(err)
	ts.Defer(func() { r.Close() })
	f := fixture{run: r, project: ts.MkAbs(args[2]), after: ts.MkAbs(args[3]), argv: args[4:]}
	ts.Check(f.write(args[1]))
	if args[1] != "running" {
		ts.Check(r.Close())
	}
}

// scriptDamage is "damage FILE": the last byte but one changes.
func scriptDamage(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	b, err := os.ReadFile(name)
	ts.Check(err)
	b[len(b)-2] ^= 1
	ts.Check(os.WriteFile(name, b, 0o600))
}

type fixture struct {
	run            *runs.Run
	project, after string
	argv           []string
}

func (f fixture) write(how string) error {
	chain, err := f.run.Events()
	if err != nil {
		return err
	}
	start := f.run.ID.Time()
	now := start
	rec, err := event.NewRecorder(event.Config{
		Run: string(f.run.ID), Handlers: []event.Handler{chain},
		Clock: func() time.Time { now = now.Add(250 * time.Millisecond); return now },
	})
	if err != nil {
		return err
	}
	rec.Emit(event.RunStarted{
		Contract: event.Contract, Runner: "test", Argv: f.argv, Project: f.project, Policy: event.PolicyRef{Digest: "sha256:0123"},
	})
	rec.Emit(event.RunPlanned{Image: event.Image{Reference: "image:1", ID: "sha256:feed"}, Engine: event.Engine{Version: "20.10", API: "1.41"}, Mode: "overlay"})
	rec.Emit(event.ConnectionRefused{Proto: "tcp", Address: "8.8.8.8", Port: 2222, Reason: "no rule allows the host", Count: 3})
	for name, text := range map[string]string{runs.StdoutFile: "to stdout\n", runs.StderrFile: "to stderr\x1b]0;title\a\n"} {
		if err := f.run.WriteFile(name, func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
			return err
		}
	}
	if how == "unread" { // its runner died when the agent worked
		if err := f.run.WriteJSON(runs.RecoveryFile, map[string]any{"version": 1, "view": map[string]any{"mode": "overlay"}}); err != nil {
			return err
		}
	}
	if how == "unread" || how == "interrupted" || how == "running" {
		return os.MkdirAll(filepath.Join(f.run.Dir(), "upper", "deep"), 0o700)
	}
	changed, protected, err := f.changes(start)
	if err != nil {
		return err
	}
	for _, p := range protected {
		rec.Emit(p)
	}
	rec.Emit(changed)
	end := map[string]event.RunFinished{
		"success": {Outcome: event.Success},
		"failure": {Outcome: event.Failure, ExitCode: 3},
		"error":   {Outcome: event.Errored, ExitCode: 125, Reason: "the engine went away"},
	}[how]
	return f.run.Finish(rec.Finish(end))
}

// changes makes the change set from project to after, as extraction would.
func (f fixture) changes(start time.Time) (sum event.ChangesExtracted, protected []event.ProtectedTouched, err error) {
	before, err := readTree(f.project)
	if err != nil {
		return sum, nil, err
	}
	after, err := readTree(f.after)
	if err != nil {
		return sum, nil, err
	}
	cs := &workspace.ChangeSet{Version: workspace.Version, Run: string(f.run.ID), Base: f.project, Started: start}
	cs.Commit, cs.Head = headOf(f.project)
	blobs := workspace.OpenBlobs(f.run.Dir())
	for path := range union(before, after) {
		o, n := before[path], after[path]
		if o.node.Equal(n.node) {
			continue
		}
		cs.Changes = append(cs.Changes, workspace.Change{Path: path, Kind: kindOf(o.node, n.node), Old: o.node, New: n.node})
		if n.node != nil && n.node.Type == workspace.File {
			if _, _, err := blobs.Put(bytes.NewReader(n.content)); err != nil {
				return sum, nil, err
			}
		}
	}
	cs.Sort()
	if err := (workspace.Gate{Protected: policy.Workspace{}.Protector().Tier, Project: f.project}).Classify(cs); err != nil {
		return sum, nil, err
	}
	root, err := os.OpenRoot(f.project)
	if err != nil {
		return sum, nil, err
	}
	defer root.Close()
	if err := workspace.SavePatch(context.Background(), f.run.Dir(), cs, workspace.PatchConfig{Old: workspace.HostFiles(root), Blobs: blobs}); err != nil {
		return sum, nil, err
	}
	for _, c := range cs.Changes {
		if c.Tier != workspace.NoTier {
			protected = append(protected, event.ProtectedTouched{Path: c.Path, Tier: string(c.Tier), Reason: c.Reason})
		}
	}
	n := cs.Counts()
	sum = event.ChangesExtracted{Added: n.Added, Modified: n.Modified, Deleted: n.Deleted, Mode: n.Mode, Git: n.Git, Reject: n.Reject, Warn: n.Warn}
	return sum, protected, cs.Save(f.run.Dir())
}

type treeNode struct {
	node    *workspace.Node
	content []byte
}

func readTree(dir string) (map[string]treeNode, error) {
	tree := map[string]treeNode{}
	return tree, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if rel == ".git" {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n := treeNode{node: &workspace.Node{Mode: info.Mode().Perm()}}
		switch {
		case d.IsDir():
			n.node.Type = workspace.Dir
		default:
			n.node.Type = workspace.File
			if n.content, err = os.ReadFile(name); err != nil {
				return err
			}
			sum := sha256.Sum256(n.content)
			n.node.SHA256, n.node.Size = hex.EncodeToString(sum[:]), int64(len(n.content))
		}
		tree[filepath.ToSlash(rel)] = n
		return nil
	})
}

func union(a, b map[string]treeNode) map[string]bool {
	all := map[string]bool{}
	for _, tree := range []map[string]treeNode{a, b} {
		for path := range tree {
			all[path] = true
		}
	}
	return all
}

func kindOf(o, n *workspace.Node) workspace.Kind {
	switch {
	case o == nil:
		return workspace.Added
	case n == nil:
		return workspace.Deleted
	case o.Type == n.Type && o.SHA256 == n.SHA256:
		return workspace.Mode
	}
	return workspace.Modified
}

// headOf is what the project's HEAD was, for a repository as `git init` and `git commit` make it.
func headOf(project string) (commit, ref string) {
	head, err := os.ReadFile(filepath.Join(project, ".git", "HEAD"))
	if err != nil {
		return "", ""
	}
	ref = string(bytes.TrimSpace(bytes.TrimPrefix(head, []byte("ref: "))))
	id, err := os.ReadFile(filepath.Join(project, ".git", filepath.FromSlash(ref)))
	if err != nil {
		return "", ""
	}
	return string(bytes.TrimSpace(slices.Clip(id))), ref
}
