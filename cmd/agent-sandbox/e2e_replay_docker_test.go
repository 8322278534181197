//go:build docker

package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestReplay runs the same again, refuses what can't be the same, and sees what differs.
func TestReplay(t *testing.T) {
	u := newUser(t)
	u.write("input", "one\n", 0o644)
	u.git("init", "-q", ".")
	u.git("add", ".")
	u.git("commit", "-qm", "one")
	u.wantCode(u.sh("cp input output; exit 3"), 3)
	first := string(u.last().ID)
	u.wantCode(u.finish(u.command("replay", "--dry-run", first)), 0)
	r := u.finish(u.command("replay", "--json", first))
	u.wantCode(r, 0)
	var report replayReport
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || !report.Same || report.First != first || report.Second == first {
		t.Errorf("%v: %s", err, r.stdout)
	}
	u.wantCode(u.sh("head -c 8 /dev/urandom | od > output"), 0)
	r = u.finish(u.command("replay", "last"))
	u.wantCode(r, 1)
	if !strings.Contains(r.stdout, "patch") || !strings.Contains(r.stdout, "DIFFERS") {
		t.Errorf("a patch that differs is not shown:\n%s", r.stdout)
	}
	u.write("input", "two\n", 0o644)
	r = u.finish(u.command("replay", first))
	u.wantCode(r, 1)
	if !strings.Contains(r.stdout, "missing  commit") {
		t.Errorf("other files than then are not told of:\n%s", r.stdout)
	}
	u.policy("credentials: {key: {from: 'env:REPLAYED_KEY', deliver: env, env: KEY}}\n")
	with := u.command("run", "--", "true")
	with.Env = append(with.Env, "REPLAYED_KEY=0123456789abcdef")
	u.wantCode(u.finish(with), 0)
	r = u.finish(u.command("replay", "--dry-run", "last"))
	u.wantCode(r, 1)
	if !strings.Contains(r.stdout, "REPLAYED_KEY is not set") {
		t.Errorf("a credential that is not at hand is not told of:\n%s", r.stdout)
	}
	u.policy("seccomp: default\n")
	r = u.finish(u.command("replay", "--dry-run", first))
	u.wantCode(r, 1)
	if !strings.Contains(r.stdout, "missing  policy") {
		t.Errorf("another policy is not told of:\n%s", r.stdout)
	}
}
