package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// userRepo is the repository that the project lies in.
type userRepo struct {
	git     *gitCmd // works on it; as its owner when we are root
	project string
	dir     string // the git directory
	common  string // the same, or for a linked worktree that of the main one
	prefix  string // the project's path in the work tree, "" or with a slash at the end
	format  string // "sha1" or "sha256"
	owner   *IDs   // whom to write as; nil for ourselves
}

// ErrNoRepo is in the error of CommitToBranch and FetchCommits when the project is not in a git repository.
var ErrNoRepo = errors.New("the project is not in a git repository")

func openRepo(ctx context.Context, git *gitCmd, project string) (*userRepo, error) {
	g := git.in(project, "")
	out, err := g.run(ctx, nil, "rev-parse", "--path-format=absolute", "--absolute-git-dir", "--git-common-dir", "--show-object-format", "--show-prefix")
	if isExit(err, 128) && strings.Contains(err.Error(), "not a git repository") {
		return nil, fmt.Errorf("%s: %w", project, ErrNoRepo)
	}
	if err != nil {
		return nil, err
	}
	lines := strings.SplitN(out, "\n", 4) // the prefix is last: it alone can hold anything
	if len(lines) != 4 {
		return nil, fmt.Errorf("git rev-parse: unexpected answer %q", out)
	}
	r := &userRepo{project: project, dir: lines[0], common: lines[1], format: lines[2], prefix: strings.TrimSuffix(lines[3], "\n")}
	if r.format != "sha1" && r.format != "sha256" {
		return nil, fmt.Errorf("git object format %q is not supported", r.format)
	}
	r.git = git.in(project, r.dir)
	info, err := os.Stat(r.common)
	if err != nil {
		return nil, err
	}
	if owner := statOf(info).owner; os.Geteuid() == 0 && owner.UID != 0 {
		r.owner = &owner // root's objects in somebody's repository would lock him out of it
		r.git.as = r.owner
		err = errors.Join(os.Lchown(git.home, owner.UID, owner.GID), os.Lchown(filepath.Join(git.home, ".gitconfig"), owner.UID, owner.GID))
	}
	return r, err
}

func (r *userRepo) zero() string { return strings.Repeat("0", r.idLength()) }

func (r *userRepo) idLength() int {
	if r.format == "sha256" {
		return 64
	}
	return 40
}

// validID reports whether s is a full object id of this repository.
func (r *userRepo) validID(s string) bool { return len(s) == r.idLength() && isHex(s) }

// ErrBranchExists is in the error of CommitToBranch and FetchCommits. A branch is only ever made, never moved.
var ErrBranchExists = errors.New("the branch exists already")

// checkName makes sure that a branch can have this name.
func (r *userRepo) checkName(ctx context.Context, name string) error {
	return r.git.checkName(ctx, name)
}

// CheckBranch makes sure that a branch can have this name, in any repository.
func CheckBranch(ctx context.Context, name string) (err error) {
	scratch, err := newScratch("")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	git, err := newGitCmd(scratch)
	if err != nil {
		return err
	}
	return git.checkName(ctx, name)
}

func (g *gitCmd) checkName(ctx context.Context, name string) error {
	if name == "" || name == "HEAD" || strings.HasPrefix(name, "-") || strings.HasPrefix(name, "refs/") {
		return fmt.Errorf("%q can't be the name of a branch", name)
	}
	_, err := g.run(ctx, nil, "check-ref-format", "refs/heads/"+name)
	if isExit(err, 1) {
		return fmt.Errorf("%q can't be the name of a branch", name)
	}
	return err
}

// checkBranch makes sure that a branch of this name can be made.
func (r *userRepo) checkBranch(ctx context.Context, name string) error {
	if err := r.checkName(ctx, name); err != nil {
		return err
	}
	_, err := r.git.run(ctx, nil, "show-ref", "--verify", "--quiet", "refs/heads/"+name)
	if err == nil {
		return fmt.Errorf("%s: %w\nhint: choose another name, or delete it first: git branch -D %s", name, ErrBranchExists, name)
	}
	if !isExit(err, 1) {
		return err
	}
	return nil
}

// tempRepo is a bare repository made by us: its configuration is ours, and of the user's it sees the objects alone.
type tempRepo struct {
	git  *gitCmd
	path string
	home string

	// writer is for commands that write objects: git, but for what lend does.
	writer *gitCmd
	lent   bool
}

// newScratch makes the private directory for an operation on git. Root working for somebody else makes it
// where that user can get to it.
func newScratch(runDir string) (string, error) {
	if os.Geteuid() == 0 {
		runDir = ""
	}
	return os.MkdirTemp(runDir, "agent-sandbox-git-*")
}

func newTempRepo(git *gitCmd, scratch string, of *userRepo) (*tempRepo, error) {
	t := &tempRepo{path: filepath.Join(scratch, "repo.git"), home: scratch}
	t.git = git.in(t.path, t.path)
	t.writer = t.git
	for _, dir := range []string{"", "objects", "objects/info", "objects/pack", "refs", "refs/heads"} {
		if err := os.Mkdir(filepath.Join(t.path, dir), 0o700); err != nil {
			return nil, err
		}
	}
	config := "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
	if of.format == "sha256" {
		config = "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectFormat = sha256\n"
	}
	files := map[string]string{
		"config": config, "HEAD": "ref: refs/heads/result\n",
		"objects/info/alternates": quoteName("", filepath.ToSlash(filepath.Join(of.common, "objects"))) + "\n",
	}
	for name, text := range files {
		if err := t.write(name, strings.NewReader(text)); err != nil {
			return nil, err
		}
	}
	return t, t.copyShallow(of)
}

// lend shows the user's objects to commands that read alone. A command that is to write an object which is there already sets its times
// instead (git's check_and_freshen), also where it is the user's; without them it writes one of our own.
func (t *tempRepo) lend(of *userRepo) error {
	name := quoteName("", filepath.ToSlash(filepath.Join(of.common, "objects")))
	if !strings.HasPrefix(name, `"`) {
		name = `"` + name + `"` // a colon would begin another directory
	}
	t.lent, t.writer, t.git = true, t.git, t.git.with("GIT_ALTERNATE_OBJECT_DIRECTORIES="+name)
	return os.Remove(filepath.Join(t.path, "objects", "info", "alternates"))
}

// write makes a new file in the repository.
func (t *tempRepo) write(name string, r io.Reader) error {
	f, err := os.OpenFile(filepath.Join(t.path, filepath.FromSlash(name)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// copyShallow tells git where the history of a shallow clone ends, as CI makes them.
func (t *tempRepo) copyShallow(of *userRepo) error {
	f, err := os.Open(filepath.Join(of.common, "shallow"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return t.write("shallow", io.LimitReader(f, 16<<20))
}

// publish brings a commit with all that it needs into the user's repository and makes a branch of it. git checks every
// object that is new there (fetch.fsckObjects) and that none is missing. The work tree and the index are not touched.
func (t *tempRepo) publish(ctx context.Context, to *userRepo, commit, branch, note string) error {
	if err := t.write("refs/heads/result", strings.NewReader(commit+"\n")); err != nil {
		return err
	}
	if err := t.giveTo(to.owner); err != nil {
		return err
	}
	_, err := to.git.run(ctx, nil, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules",
		"--no-show-forced-updates", t.path, "refs/heads/result")
	if err != nil {
		return fmt.Errorf("bring the commits into the repository: %w", err)
	}
	// The old value of zero makes the branch only if nobody else did meanwhile.
	identity := to.git.with("GIT_COMMITTER_NAME=agent-sandbox", "GIT_COMMITTER_EMAIL="+defaultEmail)
	_, err = identity.run(ctx, nil, "update-ref", "-m", note, "refs/heads/"+branch, commit, to.zero())
	if err != nil {
		return fmt.Errorf("make branch %s: %w", branch, err)
	}
	return nil
}

// giveTo hands the private directory to the user that git runs as.
func (t *tempRepo) giveTo(owner *IDs) error {
	if owner == nil {
		return nil
	}
	return filepath.WalkDir(t.home, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, owner.UID, owner.GID)
	})
}
