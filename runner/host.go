package runner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// hostPath resolves a mount's source: "~" is the caller's home, a relative path starts at the project. Symlinks are
// resolved now, so that what is mounted is what was checked.
func (r *run) hostPath(source string) (string, error) {
	switch {
	case source == "~" || strings.HasPrefix(source, "~/"):
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		source = filepath.Join(home, strings.TrimPrefix(source, "~"))
	case !filepath.IsAbs(source):
		source = filepath.Join(r.cfg.Project, source)
	}
	return filepath.EvalSymlinks(source)
}

// head is where the project stood when the run started.
type head struct{ commit, ref string }

// gitTimeout bounds a question to git about the project.
const gitTimeout = 10 * time.Second

// readHead asks git where the project stands; zero where there is no repository or no git, and without a commit where there is none yet. It is
// only asked before the agent has had anything to write to.
func readHead(ctx context.Context, project string) head {
	return head{
		commit: askGit(ctx, project, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"),
		ref:    askGit(ctx, project, "symbolic-ref", "--quiet", "HEAD"),
	}
}

func askGit(ctx context.Context, dir string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "core.fsmonitor=false"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0", "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(out))
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
