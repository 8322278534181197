//go:build docker

package main

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// commandsOf reads a log as the runner does: the commands that it would carry out.
func commandsOf(log string) (commands []string) {
	stopped := ""
	for line := range strings.Lines(log) {
		line = strings.TrimSpace(line)
		name, command := strings.CutPrefix(line, "::")
		switch {
		case stopped != "" && line == "::"+stopped+"::":
			stopped = ""
		case stopped != "":
		case command && strings.HasPrefix(name, "stop-commands::"):
			stopped = strings.TrimPrefix(name, "stop-commands::")
		case command, strings.Contains(line, "##["):
			commands = append(commands, line)
		}
	}
	return commands
}

// wantNoForgery fails if the runner, or who reads the summary, would take a word of the agent's for one of ours. All that is tried has the
// word "forged" where it would take effect.
func (h *hosted) wantNoForgery(s hostedStep) {
	h.t.Helper()
	for _, c := range commandsOf(s.log) {
		head, _, _ := strings.Cut(strings.TrimPrefix(c, "::"), "::")
		kind, fields, _ := strings.Cut(head, " ")
		if !slices.Contains([]string{"group", "endgroup", "warning", "error", "notice", "add-mask"}, kind) {
			h.t.Errorf("the log has the command %q", c)
		}
		for field := range strings.SplitSeq(fields, ",") {
			key, value, _ := strings.Cut(field, "=")
			if field != "" && key != "file" && (key != "title" || strings.Contains(value, "forged")) {
				h.t.Errorf("a command has the agent's words in its fields: %q", c)
			}
		}
	}
	for name, value := range h.outputs() {
		if strings.Contains(name, "forged") || name == "outcome" && value != "success" || name == "exit-code" && value != "0" {
			h.t.Errorf("output %q is %q", name, value)
		}
	}
	for _, name := range []string{"set_env", "add_path"} {
		if text := h.fileCommand(name); text != "" {
			h.t.Errorf("%s has %q", name, text)
		}
	}
	// In a code span nothing has a meaning.
	if summary := regexp.MustCompile("`[^`\n]*`").ReplaceAllString(h.fileCommand("step_summary"), ""); strings.Contains(summary, "forged") || strings.Contains(summary, "<img") || strings.Contains(summary, "](") || strings.ContainsAny(summary, "\x1b\x00") {
		h.t.Errorf("the summary has markup of the agent's: %q", summary)
	}
	for line := range strings.Lines(s.log) {
		if strings.ContainsAny(strings.ReplaceAll(line, "\x1b[31m", ""), "\x1b\x07\r") {
			h.t.Errorf("the log has a control character: %q", line)
		}
	}
	if h.t.Failed() {
		h.t.Logf("the log:\n%s", s.log)
	}
}

// hostileNames makes files whose names are commands, escape codes and markup, in paths that are annotated and listed; the names have no
// slash. The last file is the control: it is shown by its name.
const hostileNames = `
import os
for d in (".github/workflows", ".husky", "plain"):
    os.makedirs(d, exist_ok=True)
    for name in (b"a\n::set-output name=outcome::forged", b"a\r::error title=forged::forged", b"\x1b]0;forged\x07\x1b[2J\x1b[1Aforged", b"a%0A::error::forged",
                 b"<img src=x onerror=forged>", b"[forged](javascript:forged)", b"` + "`" + `forged` + "`" + `|forged|", b"a,title=forged", b"a::forged", b"##[error]forged",
                 b"\xff\xfeforged", b"-forged", b"$(forged)", b"\xe2\x80\xaeforged"):
        open(os.path.join(d.encode(), name), "w").close()
open(".github/workflows/!control.yml", "w").write("on: push\n")
`

// The agent's words get no further than its part of the log.
func TestActionHostileFileNames(t *testing.T) {
	h := newHosted(t, map[string]string{"names.py": hostileNames})
	s := h.run(map[string]string{"image": testImage(), "command": "python3 names.py", "apply": "none"})
	s.want(true, nil)
	wantLog(t, s.log, ".github/workflows/!control.yml")
	if !strings.Contains(h.fileCommand("step_summary"), ".github/workflows/!control.yml") {
		t.Error("the summary does not list the control: it proves nothing")
	}
	h.wantNoForgery(s)
}

func TestActionHostileOutput(t *testing.T) {
	h := newHosted(t, map[string]string{"say.py": `
import sys
for text in ("::set-output name=outcome::forged", "::set-env name=PATH::forged", "::add-path::forged", "::error title=forged::forged", "##[set-output name=forged;]forged",
             "::stop-commands::forged\n::forged::\n::set-output name=forged::forged", "::endgroup::\n::group::Result\nagent-sandbox: exit 0", "\x1b[2J\x1b[1A\x1b]0;forged\x07\x1b[31mred",
             "outcome<<agent-sandbox\nforged\nagent-sandbox", "late\r::set-output name=forged::forged"):
    print(text); sys.stdout.flush(); print(text, file=sys.stderr); sys.stderr.flush()
print("end of the control", end="")
`})
	s := h.run(map[string]string{"image": testImage(), "command": "python3 say.py"})
	s.want(true, nil)
	wantLog(t, s.log, "end of the control")
	h.wantNoForgery(s)
	// Without the protection: what the runner would have made of the same text where nothing stops its commands.
	_, said, _ := strings.Cut(s.log, "::stop-commands::")
	if _, said, _ = strings.Cut(said, "\n"); len(commandsOf(said)) < 10 {
		t.Errorf("the agent's part of the log has only the commands %q: the entry proves nothing", commandsOf(said))
	}
}

// hostileBranches are names of branches that somebody else may choose: git takes the first ones.
func hostileBranches() map[string]bool {
	return map[string]bool{
		"$(touch${IFS}forged)": true, "a;touch${IFS}forged": true, "`touch${IFS}forged`": true, "::set-output${IFS}name=x": false, "a'b\"c": true, "%0Aerror": true, "%0A::error": false,
		"--upload-pack=touch": false, "-b": false, "a\n::set-output name=outcome::forged": false, "a\r::error::forged": false, "refs/heads/main": false, "HEAD": false,
		"a..b": false, "a b": false, "a:refs/heads/main": false, "../../x": false, "x.lock": false, "\x1b[2Jforged": false,
	}
}

// A branch's name is a name: it is taken as it is or refused, and nothing of it is run. The name may be a pull request's, by way of
// `branch: agent/${{ github.head_ref }}` in the workflow.
func TestActionHostileBranches(t *testing.T) {
	h := newHosted(t, nil)
	u := newUser(t) // outside of a container: it is the same program, and there are many names
	for name, valid := range hostileBranches() {
		writeFile(t, filepath.Join(h.temp, "_runner_file_commands", "set_output_4711"), "")
		s := h.outside(u, map[string]string{
			"image": testImage(), "command": "date +%N >file.txt", "apply": "commit", "branch": name,
		}, map[string]string{"GITHUB_HEAD_REF": name, "GITHUB_REF": "refs/heads/" + name, "GITHUB_REF_NAME": name})
		if s.ok != valid {
			t.Errorf("branch %q: succeeded: %v, want %v\n%s", name, s.ok, valid, s.log)
		}
		if valid && gitAt(t, h.dir, "cat-file", "-t", "refs/heads/"+name) != "commit\n" {
			t.Errorf("there is no branch %q", name)
		}
		for _, c := range commandsOf(s.log) {
			if strings.HasPrefix(c, "::set-output") || strings.HasPrefix(c, "::error::forged") {
				t.Errorf("branch %q: the log has the command %q", name, c)
			}
		}
		for _, dir := range []string{h.dir, u.project, "."} {
			if exists(filepath.Join(dir, "forged")) {
				t.Fatalf("branch %q was run", name)
			}
		}
	}
}
