package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestWatchIsHidden: nobody who looks for commands finds one that does nothing for him.
func TestWatchIsHidden(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"__complete", ""}, {"__complete", "__"}} {
		var out bytes.Buffer
		root := newRoot(&app{lookupEnv: func(string) (string, bool) { return "", false }})
		root.SetArgs(args)
		root.SetOut(&out)
		root.SetErr(&out)
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Errorf("%q: %v", args, err)
		}
		if strings.Contains(out.String(), watchName) {
			t.Errorf("%q shows %s:\n%s", args, watchName, out.String())
		}
	}
}

// TestWatcherCommand is detached from the caller's terminal, and keeps nothing of the caller's open.
func TestWatcherCommand(t *testing.T) {
	cmd, err := watcher()
	if err != nil {
		t.Fatal(err)
	}
	if cmd.Dir != rootDir || cmd.Stdin != nil || cmd.Stdout != nil || cmd.Stderr != nil || cmd.SysProcAttr == nil || len(cmd.ExtraFiles) > 0 {
		t.Errorf("the command is %+v", cmd)
	}
}
