//go:build docker

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A job is cancelled by an interrupt to the client that the runner started, then by SIGTERM; a runner that dies leaves a kill. Whatever it
// is, the agent's container, its volumes and the step's own are gone, after a kill with the step that comes after the job.
func TestActionCancelled(t *testing.T) {
	for name, stop := range map[string]func(client *exec.Cmd, container string) error{
		"interrupt": func(client *exec.Cmd, _ string) error { return client.Process.Signal(os.Interrupt) },
		"terminate": func(client *exec.Cmd, _ string) error { return client.Process.Signal(syscall.SIGTERM) },
		"kill":      func(_ *exec.Cmd, container string) error { return exec.Command("docker", "kill", container).Run() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHosted(t, nil)
			ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
			defer cancel()
			client, container := h.command(ctx, map[string]string{"image": testImage(), "command": "echo working; exec sleep 1000"})
			log := startAndAwait(t, client, "working")
			state := h.fileCommand("save_state")
			_, rest, _ := strings.Cut(state, "run<<")
			run := strings.Split(rest, "\n")[1]
			sandbox := dockerLines(t, "ps", "-q", "--filter", "label=agent-sandbox="+run)
			if len(sandbox) != 1 {
				t.Fatalf("the run has the containers %q", sandbox)
			}
			volumes := dockerLines(t, "inspect", "--format", `{{range .Mounts}}{{if eq .Type "volume"}}{{println .Name}}{{end}}{{end}}`, container, sandbox[0])
			if len(volumes) < 3 { // the step's state, the guest, the overlay
				t.Fatalf("the volumes are %q", volumes)
			}
			if err := stop(client, container); err != nil {
				t.Fatal(err)
			}
			text := log()
			if err := client.Wait(); err == nil {
				t.Errorf("the step succeeded\n%s", text)
			}
			if name == "kill" {
				h.post(ctx)
				newUser(t).wantInterrupted(filepath.Join(h.dir, outputDir, run), run)
				h.wantOwned()
			} else if got := h.outputs()["outcome"]; got != "cancelled" {
				t.Errorf("the outcome is %q\n%s", got, text)
			}
			h.wantNothingLeft(run)
			if left, err := filepath.Glob(filepath.Join(h.temp, "*", recordPrefix+"*")); err != nil || len(left) > 0 {
				t.Errorf("the record's directory was left: %q, %v", left, err)
			}
			for _, v := range volumes {
				if strings.HasPrefix(v, "agent-sandbox-guest-") { // for every run
					continue
				}
				if exec.Command("docker", "volume", "inspect", v).Run() == nil {
					t.Errorf("the volume %s is there", v)
				}
			}
		})
	}
}

// startAndAwait starts a step and reads its log to a line that begins with these words. The function that it returns reads the rest.
func startAndAwait(t *testing.T, cmd *exec.Cmd, words string) (rest func() string) {
	t.Helper()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		log.WriteString(line)
		if strings.HasPrefix(line, words) {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s%s", err, &log, &errs)
		}
	}
	return func() string {
		text, _ := io.ReadAll(r) // until the process ends
		return log.String() + string(text)
	}
}

// fileCommand is what a step wrote to one of the runner's files.
func (h *hosted) fileCommand(name string) string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.temp, "_runner_file_commands", name+"_4711"))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

// post is the step after the job, in a container of its own.
func (h *hosted) post(ctx context.Context) {
	h.t.Helper()
	for _, kv := range stateOf(h.t, filepath.Join(h.temp, "_runner_file_commands", "save_state_4711")) {
		name, value, _ := strings.Cut(kv, "=")
		h.env[name] = value
	}
	h.options = append(h.options, "--entrypoint", "/usr/local/bin/agent-sandbox-post")
	cmd, _ := h.command(ctx, nil)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Errorf("the post step: %v\n%s", err, out)
	}
}

// dockerLines is what the client prints.
func dockerLines(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("docker", args...).Output()
	if err != nil {
		t.Errorf("docker %q: %v", args, err)
	}
	return strings.Fields(string(out))
}
