//go:build docker

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hostedUID is who owns the files of a job on GitHub's runners.
const hostedUID = 1001

// hosted is a job on a runner of GitHub's, as far as a container action sees one: its directories, their owner, and the way in which the
// runner starts the container (actions/runner 2.336, ContainerActionHandler.cs and DockerCommandManager.cs).
type hosted struct {
	t       *testing.T
	image   string
	temp    string // the runner's _temp
	dir     string // the repository
	env     map[string]string
	options []string // of docker run, besides the runner's own
	args    []string // the container's; none: the image's entry point alone
}

const hostedPolicy = "version: 1\n"

func newHosted(t *testing.T, files map[string]string) *hosted {
	t.Helper()
	if os.Getenv("DOCKER_HOST") != "" {
		t.Skip("the image of the action is in the machine's own engine alone")
	}
	image, err := actionImage()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	h := &hosted{t: t, image: image, temp: filepath.Join(root, "_temp"), dir: filepath.Join(root, "shop", "shop")}
	commands := []string{"set_output", "save_state", "step_summary", "set_env", "add_path"}
	for _, name := range commands {
		writeFile(t, filepath.Join(h.temp, "_runner_file_commands", name+"_4711"), "")
	}
	writeFile(t, filepath.Join(h.temp, "_github_workflow", "event.json"), `{"repository": {"id": 4711}}`)
	writeFile(t, filepath.Join(h.temp, "_github_home", ".keep"), "")
	for name, text := range map[string]string{policyFile: hostedPolicy, "file.txt": "old\n", "dir/kept.txt": "kept\n"} {
		writeFile(t, filepath.Join(h.dir, name), text)
	}
	for name, text := range files {
		writeFile(t, filepath.Join(h.dir, name), text)
	}
	h.env = hostedEnv()
	repository := &workflow{t: t, dir: h.dir}
	repository.git("init", "-q", "-b", "main")
	repository.commit()
	h.give()
	return h
}

// hostedEnv is the environment of a step that was given no inputs.
func hostedEnv() map[string]string {
	return map[string]string{
		"HOME": "/github/home", "CI": "true", "GITHUB_ACTIONS": "true",
		"GITHUB_ACTION": "__self", "GITHUB_ACTION_PATH": "", "GITHUB_ACTION_REF": "", "GITHUB_ACTION_REPOSITORY": "", "GITHUB_ACTOR": "octocat", "GITHUB_ACTOR_ID": "583231",
		"GITHUB_API_URL": "https://api.github.com", "GITHUB_BASE_REF": "", "GITHUB_ENV": "/github/file_commands/set_env_4711", "GITHUB_EVENT_NAME": "push",
		"GITHUB_EVENT_PATH": "/github/workflow/event.json", "GITHUB_GRAPHQL_URL": "https://api.github.com/graphql", "GITHUB_HEAD_REF": "", "GITHUB_JOB": "test",
		"GITHUB_OUTPUT": "/github/file_commands/set_output_4711", "GITHUB_PATH": "/github/file_commands/add_path_4711", "GITHUB_REF": "refs/heads/main",
		"GITHUB_REF_NAME": "main", "GITHUB_REF_PROTECTED": "false", "GITHUB_REF_TYPE": "branch", "GITHUB_REPOSITORY": "acme/shop", "GITHUB_REPOSITORY_ID": "4711",
		"GITHUB_REPOSITORY_OWNER": "acme", "GITHUB_REPOSITORY_OWNER_ID": "4712", "GITHUB_RETENTION_DAYS": "90", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_RUN_ID": "4713",
		"GITHUB_RUN_NUMBER": "1", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_SHA": strings.Repeat("0", 40), "GITHUB_STATE": "/github/file_commands/save_state_4711",
		"GITHUB_STEP_SUMMARY": "/github/file_commands/step_summary_4711", "GITHUB_TRIGGERING_ACTOR": "octocat", "GITHUB_WORKFLOW": "test",
		"GITHUB_WORKFLOW_REF": "acme/shop/.github/workflows/test.yml@refs/heads/main", "GITHUB_WORKFLOW_SHA": strings.Repeat("0", 40), "GITHUB_WORKSPACE": "/github/workspace",
		"RUNNER_ARCH": "X64", "RUNNER_ENVIRONMENT": "github-hosted", "RUNNER_NAME": "GitHub Actions 1", "RUNNER_OS": "Linux", "RUNNER_TEMP": "/github/runner_temp",
		"RUNNER_TOOL_CACHE": "/opt/hostedtoolcache", "RUNNER_WORKSPACE": "/home/runner/work/shop",
		"ACTIONS_RUNTIME_URL": "https://pipelines.example.org/", "ACTIONS_CACHE_URL": "https://cache.example.org/",
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// owner is whose the job's files are here: only root can make them another's.
func (h *hosted) owner() int {
	if uid := os.Geteuid(); uid != 0 {
		return uid
	}
	return hostedUID
}

// give makes all files the runner's.
func (h *hosted) give() {
	h.t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	for _, dir := range []string{h.temp, h.dir} {
		err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(p, hostedUID, hostedUID)
		})
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

// command is what the runner starts, with the inputs of the step.
func (h *hosted) command(ctx context.Context, inputs map[string]string) (cmd *exec.Cmd, name string) {
	name = "actrun" + strings.ToLower(rand.Text())
	args := []string{"run", "--name", name, "--label", "4a7d03", "--workdir", "/github/workspace", "--rm"}
	env := maps.Clone(h.env)
	for input, value := range inputs {
		env["INPUT_"+strings.ToUpper(strings.ReplaceAll(input, " ", "_"))] = value
	}
	cmd = exec.CommandContext(ctx, "docker")
	cmd.Env = os.Environ()
	for _, key := range slices.Sorted(maps.Keys(env)) {
		args = append(args, "-e", key+"="+env[key])
	}
	for _, v := range [][2]string{
		{"/var/run/docker.sock", "/var/run/docker.sock"},
		{h.temp, "/github/runner_temp"},
		{filepath.Join(h.temp, "_github_home"), "/github/home"},
		{filepath.Join(h.temp, "_github_workflow"), "/github/workflow"},
		{filepath.Join(h.temp, "_runner_file_commands"), "/github/file_commands"},
		{h.dir, "/github/workspace"},
	} {
		args = append(args, "-v", v[0]+":"+v[1])
	}
	cmd.Args = append(cmd.Args, slices.Concat(args, h.options, []string{h.image}, h.args)...)
	return cmd, name
}

// step is how a step ended.
type hostedStep struct {
	t       *testing.T
	log     string
	ok      bool
	outputs map[string]string
}

// run runs the step.
func (h *hosted) run(inputs map[string]string) hostedStep {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), commandTimeout)
	defer cancel()
	cmd, name := h.command(ctx, inputs)
	cmd.WaitDelay = 5 * time.Second
	log, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		_ = exec.Command("docker", "rm", "-f", name).Run()
		h.t.Fatalf("the step did not end\n%s", log)
	}
	return hostedStep{t: h.t, log: string(log), ok: err == nil, outputs: h.outputs()}
}

// outputs reads the file as the runner does (FileCommandManager.cs).
func (h *hosted) outputs() map[string]string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.temp, "_runner_file_commands", "set_output_4711"))
	if err != nil {
		h.t.Fatal(err)
	}
	all := map[string]string{}
	lines := strings.Split(string(b), "\n")
	for i := 0; i < len(lines); i++ {
		name, delimiter, heredoc := strings.Cut(lines[i], "<<")
		if !heredoc {
			if key, value, ok := strings.Cut(lines[i], "="); ok {
				all[key] = value
			}
			continue
		}
		var value []string
		for i++; i < len(lines) && lines[i] != delimiter; i++ {
			value = append(value, lines[i])
		}
		all[name] = strings.Join(value, "\n")
	}
	return all
}

func (s hostedStep) want(ok bool, outputs map[string]string) {
	s.t.Helper()
	if s.ok != ok {
		s.t.Errorf("the step succeeded: %v, want %v", s.ok, ok)
	}
	for name, want := range outputs {
		if got := s.outputs[name]; got != want {
			s.t.Errorf("output %s is %q, want %q", name, got, want)
		}
	}
	if s.t.Failed() {
		s.t.Fatalf("the log:\n%s", s.log)
	}
}

// mode is the workspace's, and why it was lowered, as the record has it.
func (h *hosted) mode(s hostedStep) (mode, why string) {
	h.t.Helper()
	var plan struct {
		Workspace struct {
			Mode string `json:"mode"`
		} `json:"workspace"`
		Lowered []struct {
			What string `json:"what"`
			Why  string `json:"why"`
		} `json:"lowered"`
	}
	b, err := os.ReadFile(filepath.Join(h.dir, outputDir, s.outputs["run-id"], "plan.json"))
	if err == nil {
		err = json.Unmarshal(b, &plan)
	}
	if err != nil {
		h.t.Fatalf("%v\n%s", err, s.log)
	}
	for _, l := range plan.Lowered {
		if l.What == "workspace" {
			why += l.Why + "\n"
		}
	}
	return plan.Workspace.Mode, why
}

// wantOwned fails if a file of the workspace is somebody else's, or one of ours was forgotten there.
func (h *hosted) wantOwned() {
	h.t.Helper()
	err := filepath.WalkDir(h.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if uid := int(info.Sys().(*syscall.Stat_t).Uid); uid != h.owner() {
			h.t.Errorf("%s is uid %d's, want %d", p, uid, h.owner())
		}
		if strings.Contains(d.Name(), "-proof-") {
			h.t.Errorf("%s was left behind", p)
		}
		return nil
	})
	if err != nil {
		h.t.Error(err)
	}
}

// wantNothingLeft fails if the engine has anything of the run but the guest's volume, which is for every run.
func (h *hosted) wantNothingLeft(run string) {
	h.t.Helper()
	for _, kind := range [][]string{{"ps", "-aq"}, {"volume", "ls", "-q"}} {
		out, err := exec.Command("docker", append(kind, "--filter", "label=agent-sandbox="+run)...).Output()
		left := slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool { return strings.HasPrefix(name, "agent-sandbox-guest-") })
		if err != nil || len(left) > 0 {
			h.t.Errorf("docker %q: %q, %v", kind, left, err)
		}
	}
}
