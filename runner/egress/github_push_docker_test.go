//go:build docker

package egress

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/runnertest"
	"github.com/org/agent-sandbox/runner/secret"
)

// TestRenewalWithinAPush: the token of a push of 200 MB is replaced and revoked while the pack is on its way. The push ends well, and the
// next request has the new one.
func TestRenewalWithinAPush(t *testing.T) {
	const renewed = "tok_renewed-abcdefghijklmn"
	gh := newGitHub(t, "refs/heads/agent/*")
	gh.AddToken(runnertest.Token{Text: renewed, Permissions: map[string]string{"contents": "write"}})
	var now atomic.Value
	now.Store(realToken)
	gh.s.g.credentials[0].Value = func(context.Context) (secret.Value, error) { return secret.New(now.Load().(string)), nil }
	work := filepath.Join(gh.work, "shop")
	for _, args := range [][]string{{"clone", "-q", gh.url + "acme/shop.git", work}, {"-C", work, "config", "core.compression", "0"}, {"-C", work, "config", "pack.window", "0"}} {
		if out, err := gh.git(gh.work, args...); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	f, err := os.Create(filepath.Join(work, "big"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(f, rand.Reader, 200<<20); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	for _, args := range [][]string{{"add", "big"}, {"commit", "-q", "-m", "big"}} {
		if out, err := gh.git(work, args...); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	type ended struct {
		out string
		err error
	}
	done := make(chan ended, 1)
	go func() {
		out, err := gh.git(work, "push", "origin", "HEAD:agent/big")
		done <- ended{out, err}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for gh.Seen("POST", "/acme/shop.git/git-receive-pack") < 2 { // the first asks whether the second may come
		select {
		case e := <-done:
			t.Fatalf("the push ended before it began: %v\n%s", e.err, e.out)
		case <-tick.C:
		}
	}
	now.Store(renewed)
	gh.RevokeToken(realToken)
	if e := <-done; e.err != nil {
		t.Fatalf("%v\n%s", e.err, e.out)
	}
	if head := strings.TrimSpace(git(t, work, "rev-parse", "HEAD")); gh.shop.Ref("refs/heads/agent/big") != head {
		t.Errorf("the ref is %q, want %q", gh.shop.Ref("refs/heads/agent/big"), head)
	}
	if out, err := gh.git(work, "fetch", "origin"); err != nil {
		t.Errorf("after the renewal: %v\n%s", err, out)
	}
	all := gh.Requests()
	if last := all[len(all)-1]; !strings.HasSuffix(last.Credential, renewed) {
		t.Errorf("the last request had %q", last.Credential)
	}
}
