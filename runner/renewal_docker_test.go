//go:build docker

package runner

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runnertest"
)

// longWork outlives three tokens. It goes on when it is given a line.
const longWork = `
set -e
cd /tmp && export GIT_TERMINAL_PROMPT=0 && git config --global user.name t && git config --global user.email t@example.org
git config --global core.compression 0; git config --global core.bigFileThreshold 1m
ask() { curl -sS --fail-with-body "https://api.github.com/repos/acme/shop/issues?step=$1" >/dev/null; }
git clone -q https://github.com/acme/shop.git shop; cd shop
head -c 200M /dev/urandom >big; git add big; git commit -q -m big; rm big
ask 1; read -r _; ask 2
git push -q origin HEAD:agent/big </dev/null & pushed=$!
read -r _; ask 3
wait $pushed
git fetch -q origin
read -r _; ask 4
echo all of it worked`

// TestRenewals: a run that is longer than the life of its tokens comes to its end. There are three renewals; one of them is in the middle of a
// push of 200 MB, whose own token ends before the push does.
func TestRenewals(t *testing.T) {
	l := testLab(t)
	l.entry(t, "credentials", "a renewal in the middle of a git push", "a request goes on with the token that it began with", func(t *testing.T, _ func(string)) {
		l.renewWithinAPush(t)
	})
}

func (l *lab) renewWithinAPush(t *testing.T) {
	t.Helper()
	gh, shop, s := atApp(t, mayPush, "resources: {tmp: 1GiB}\n")
	s.seam.now = gh.Now
	const push = "/acme/shop.git/git-receive-pack"
	hold, held := make(chan struct{}), make(chan struct{})
	gh.Inject(runnertest.Fault{Method: "POST", Path: push, Hold: hold, After: 100 << 20, Held: sync.OnceFunc(func() { close(held) })})
	more, input := io.Pipe()
	s.stdin = more
	directed := make(chan error, 1)
	go func() {
		defer input.Close()
		release := sync.OnceFunc(func() { close(hold) })
		defer release()
		asked := func(n int) func() bool {
			return func() bool { return gh.Seen("GET", fmt.Sprintf("/repos/acme/shop/issues?step=%d", n)) > 0 }
		}
		for _, step := range []struct {
			until func() bool
			later time.Duration // it is, when that has happened
			then  func()
		}{
			{asked(1), 56 * time.Minute, func() { _, _ = io.WriteString(input, "\n") }},
			{func() bool { return isClosed(held) }, 56 * time.Minute, func() { _, _ = io.WriteString(input, "\n") }},
			{asked(3), 6 * time.Minute, release},
			{func() bool { return gh.Seen("GET", "/acme/shop.git/info/refs?service=git-upload-pack") > 1 }, 56 * time.Minute, func() { _, _ = io.WriteString(input, "\n") }},
		} {
			if err := seen(t.Context(), step.until); err != nil {
				directed <- err
				return
			}
			gh.Advance(step.later)
			step.then()
		}
		directed <- nil
	}()
	b := l.start(t, s, []string{"bash", "-c", longWork}, nil)
	_ = more.Close()
	if err := <-directed; err != nil || b.err != nil || b.result.ExitCode != 0 || !strings.Contains(string(b.stdout), "all of it worked\n") {
		t.Fatalf("exit %d, %v, %v\n%s%s", b.result.ExitCode, b.err, err, b.stdout, b.stderr)
	}
	if shop.Ref("refs/heads/agent/big") == "" {
		t.Error("the push did not arrive")
	}
	state := b.result.Summary.Credentials[0]
	if state.Renewals != 3 || len(state.Revocations) != 4 || state.Revoked == event.RevocationFailed || len(gh.Live()) != 0 {
		t.Errorf("%d tokens are live; the record is %+v", len(gh.Live()), state)
	}
	used := map[string]bool{}
	pushed, fetched := "", ""
	for _, r := range gh.Requests() {
		_, password, _ := strings.Cut(r.Credential, ":")
		switch {
		case r.Method == "POST" && r.Path == push:
			pushed = password
		case r.Method == "POST" && strings.HasSuffix(r.Path, "/git-upload-pack"), strings.Contains(r.Path, "service=git-upload-pack"):
			fetched = password
		case strings.Contains(r.Path, "step="):
			used[r.Credential] = true
		}
	}
	if len(used) != 4 || pushed == fetched || !used[pushed] || !used[fetched] {
		t.Errorf("%d tokens were used; the fetch after the push had the token of the push: %v", len(used), pushed == fetched)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
