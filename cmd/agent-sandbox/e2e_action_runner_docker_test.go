//go:build docker

package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The container as the runner starts it: a workspace of another uid's, the runner's files beside it.
func TestActionOnTheRunner(t *testing.T) {
	work := "set -e; echo new >file.txt; mkdir -p dir/sub; echo more >dir/sub/added.txt; rm dir/kept.txt; git mv -k file.txt moved.txt; curl -sS --max-time 5 https://example.org || true"
	for _, tt := range []struct {
		inputs map[string]string
		mode   string
	}{
		{map[string]string{}, "overlay"},
		{map[string]string{"workspace-mode": "overlay"}, "overlay"},
		{map[string]string{"workspace-mode": "copy"}, "copy"},
	} {
		t.Run(tt.inputs["workspace-mode"], func(t *testing.T) {
			h := newHosted(t, nil)
			maps.Copy(tt.inputs, map[string]string{"image": testImage(), "apply": "workspace", "command": work})
			s := h.run(tt.inputs)
			s.want(true, map[string]string{"outcome": "success", "exit-code": "0", "changed-files": "4", "refused-connections": "2"})
			if mode, why := h.mode(s); mode != tt.mode {
				t.Errorf("the workspace's mode is %s, want %s: %s", mode, tt.mode, why)
			}
			for name, want := range map[string]string{"moved.txt": "new\n", "dir/sub/added.txt": "more\n"} {
				if got, err := os.ReadFile(filepath.Join(h.dir, name)); string(got) != want {
					t.Errorf("%s is %q, %v", name, got, err)
				}
			}
			if _, err := os.Stat(filepath.Join(h.dir, "dir/kept.txt")); err == nil {
				t.Error("what was deleted is there")
			}
			summary, err := os.ReadFile(filepath.Join(h.temp, "_runner_file_commands", "step_summary_4711"))
			if err != nil || !strings.Contains(string(summary), s.outputs["run-id"]) {
				t.Errorf("the summary is %q, %v", summary, err)
			}
			h.wantOwned()
			h.wantNothingLeft(s.outputs["run-id"])
		})
	}
}

// Mode bind is the policy's to give: an input can't widen it.
func TestActionBind(t *testing.T) {
	inputs := map[string]string{"image": testImage(), "workspace-mode": "bind", "command": "echo new >file.txt; echo x >added.txt; ! echo x >>.git/config"}
	s := newHosted(t, nil).run(inputs)
	s.want(false, map[string]string{})
	wantLog(t, s.log, "workspace-mode: bind lets the agent write more than the policy's overlay does")

	h := newHosted(t, map[string]string{policyFile: "version: 1\nworkspace: {mode: bind}\n"})
	s = h.run(inputs)
	s.want(true, map[string]string{"outcome": "success", "changed-files": "2"})
	if mode, _ := h.mode(s); mode != "bind" {
		t.Errorf("the workspace's mode is %s", mode)
	}
	if got, err := os.ReadFile(filepath.Join(h.dir, "file.txt")); string(got) != "new\n" {
		t.Errorf("file.txt is %q, %v", got, err)
	}
	h.wantOwned()
}

func TestActionReadonly(t *testing.T) {
	h := newHosted(t, nil)
	s := h.run(map[string]string{"image": testImage(), "workspace-mode": "readonly", "command": "cat file.txt; ! echo new >file.txt"})
	s.want(true, map[string]string{"outcome": "success", "changed-files": "0"})
	if mode, _ := h.mode(s); mode != "readonly" {
		t.Errorf("the workspace's mode is %s", mode)
	}
}

// An engine that has other files under the same names, as with Docker in Docker: the workspace is mounted anew where the engine does not
// see it. It is copied, and whoever insists on an overlay is told why there is none.
func TestActionSplitFilesystem(t *testing.T) {
	elsewhere := `set -e; cp -a /github/workspace /var/lib/agent-sandbox/saved; mount -t tmpfs none /github/workspace; cp -a /var/lib/agent-sandbox/saved/. /github/workspace
agent-sandbox action "$@"; cat /github/workspace/file.txt`
	for mode, ok := range map[string]bool{"": true, "overlay": false} {
		h := newHosted(t, nil)
		h.options = []string{"--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined", "--entrypoint", "/bin/sh"}
		h.args = []string{"-c", elsewhere, "sh", "--workspace-mode=" + mode} // a shell hands no variable on whose name has a dash
		s := h.run(map[string]string{"image": testImage(), "apply": "workspace", "command": "cat file.txt; echo from the copy >file.txt"})
		s.want(ok, nil)
		wantLog(t, s.log, "the engine has another file system than this container")
		if ok {
			wantLog(t, s.log, "the project is copied in and out", "from the copy")
		}
		if got, err := os.ReadFile(filepath.Join(h.dir, "file.txt")); string(got) != "old\n" {
			t.Errorf("the engine's file is %q, %v", got, err)
		}
	}
}

// A commit's objects are the workspace owner's too, so that later steps can go on with the repository.
func TestActionCommitsAsTheOwner(t *testing.T) {
	h := newHosted(t, nil)
	s := h.run(map[string]string{"image": testImage(), "command": "echo new >file.txt", "apply": "commit", "branch": "agent/fix"})
	s.want(true, map[string]string{"branch": "agent/fix"})
	cmd := exec.Command("git", "-c", "safe.directory=*", "-C", h.dir, "show", "agent/fix:file.txt")
	if out, err := cmd.CombinedOutput(); string(out) != "new\n" {
		t.Errorf("the branch has %q, %v", out, err)
	}
	h.wantOwned()
}
