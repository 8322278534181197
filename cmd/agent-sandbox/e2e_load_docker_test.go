//go:build docker

package main

import (
	"bufio"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/event"
)

// footprint is what a process holds.
type footprint struct {
	descriptors, threads int
	memory               int // resident, KiB
}

func (f footprint) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %.1f MiB", f.descriptors, f.threads, float64(f.memory)/1024)
}

// loaded is a run whose agent is testdata/load.
type loaded struct {
	*process
	limit time.Duration // of a command
	guest int           // its process on this machine
}

// startLoad begins a run with servers of all kinds to reach.
func startLoad(t *testing.T, limit time.Duration) *loaded {
	t.Helper()
	large := bytes.Repeat([]byte("x"), 1<<20)
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			_, _ = w.Write(large)
			return
		}
		_, _ = io.WriteString(w, "small")
	}))
	web.EnableHTTP2, web.Config.ErrorLog = true, log.New(io.Discard, "", 0) // clients that break off are what this is about
	web.StartTLS()
	t.Cleanup(web.Close)
	echo := crowd(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c)
	})
	resets := crowd(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
	})
	u := newUser(t)
	u.limit = limit
	echoes := ""
	for i := range 8 {
		echoes += fmt.Sprintf("    - {host: echo%d.test, port: 1000, tcp: true, to: %q}\n", i, echo)
	}
	u.policy(fmt.Sprintf(`network:
  allow:
    - {host: echo.test, port: 1000, tcp: true, to: %q}
    - {host: resets.test, port: 1000, tcp: true, to: %q}
    - {host: spliced.test, port: 443, to: %q}
    - {host: example.com, port: 443, to: %q, rules: ["GET /small", "GET /large"]}
%s`, echo, resets, web.Listener.Addr(), web.Listener.Addr(), echoes))
	u.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})), 0o644)
	if err := goBuild(filepath.Join(u.project, "load"), "./testdata/load"); err != nil {
		t.Fatal(err)
	}
	l := &loaded{process: u.start("--ca-file", "ca.pem", "--", "./load"), limit: limit}
	l.guest = initOf(t, l.ask("namespace", limit))
	return l
}

// crowd serves connections with f, all at once, until the test ends.
func crowd(t *testing.T, f func(*net.TCPConn)) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				f(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return l.Addr()
}

// ask gives the agent a line and reads its answer.
func (l *loaded) ask(line string, limit time.Duration) string {
	l.u.t.Helper()
	if _, err := fmt.Fprintln(l.stdin, line); err != nil {
		l.u.t.Fatal(err)
	}
	if err := l.pipe.SetReadDeadline(time.Now().Add(limit)); err != nil {
		l.u.t.Fatal(err)
	}
	got, err := l.stdout.ReadString('\n')
	if err != nil {
		l.u.t.Fatalf("%s: %v\nstderr: %.4000s", line, err, l.stderr)
	}
	return strings.TrimSuffix(got, "\n")
}

// do is an ask that has to succeed.
func (l *loaded) do(line string) {
	l.u.t.Helper()
	start := time.Now()
	if got := l.ask(line, l.limit); got != "done" {
		l.u.t.Fatalf("%s: %s", line, got)
	}
	l.u.t.Logf("%s: %s; runner %v; guest %v", line, time.Since(start).Round(time.Millisecond), l.footprint(l.cmd.Process.Pid), l.footprint(l.guest))
}

// end lets the agent come to its end.
func (l *loaded) end() event.Summary {
	l.u.t.Helper()
	if err := l.stdin.Close(); err != nil {
		l.u.t.Error(err)
	}
	l.u.wantCode(l.wait(), 0)
	return l.u.summary()
}

func (l *loaded) footprint(pid int) footprint {
	l.u.t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		l.u.t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "status"))
	if err != nil {
		l.u.t.Fatal(err)
	}
	defer f.Close()
	found := footprint{descriptors: len(fds)}
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			found.memory = n
		case "Threads":
			found.threads = n
		}
	}
	return found
}

// initOf finds process 1 of a process namespace among the processes of this machine.
func initOf(t *testing.T, namespace string) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if own, err := os.Readlink(name); err != nil || own != namespace {
			continue
		}
		dir := filepath.Dir(filepath.Dir(name))
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if ids := strings.Fields(line); len(ids) > 1 && ids[0] == "NSpid:" && ids[len(ids)-1] == "1" {
				pid, _ := strconv.Atoi(filepath.Base(dir))
				return pid
			}
		}
	}
	t.Skipf("the engine's processes can't be seen from here (none is in %s)", namespace)
	return 0
}

// wantBack waits until runner and guest hold no more than they did.
func (l *loaded) wantBack(before [2]footprint, margin int) {
	l.u.t.Helper()
	eventually(l.u.t, eventTimeout, func() (bool, string) {
		ok, states := true, []string{}
		for i, pid := range []int{l.cmd.Process.Pid, l.guest} {
			now := l.footprint(pid)
			ok = ok && now.descriptors <= before[i].descriptors && now.memory <= before[i].memory+margin
			states = append(states, fmt.Sprintf("%s: %v before, %v now", []string{"runner", "guest"}[i], before[i], now))
		}
		if ok {
			l.u.t.Log(strings.Join(states, "; "))
		}
		return ok, strings.Join(states, "; ")
	})
}

func (l *loaded) both() [2]footprint {
	l.u.t.Helper()
	return [2]footprint{l.footprint(l.cmd.Process.Pid), l.footprint(l.guest)}
}

// loadTimeout is for a machine that has much else to do: on one that has not, all of it takes half a minute.
const loadTimeout = 5 * time.Minute

// loadMargin is the memory, in KiB, that may stay with a process after a load: what the garbage collector has not given back.
const loadMargin = 64 << 10

// sequence is how many connections there are one after another: `make soak` has the whole number, every other run a fifth of it, which
// shows a leak as well, in a fifth of the time.
func sequence() int {
	if os.Getenv("SOAK") != "" {
		return 20_000
	}
	return 4000
}

// TestNetworkLoad: thousands of connections at once, and many thousands after one another, leave nothing behind.
func TestNetworkLoad(t *testing.T) {
	l := startLoad(t, loadTimeout)
	count := sequence()
	l.do("short 200")
	before := l.both()
	l.do("open 2000")
	if now := l.both(); min(now[0].descriptors, now[1].descriptors) < 2000 {
		t.Errorf("2000 connections are open, and runner and guest have %v", now)
	}
	l.do("use")
	l.do("close")
	l.do(fmt.Sprintf("short %d", count))
	l.wantBack(before, loadMargin)
	if s := l.end(); int(s.Counts.AllowedConnections) != 2200+count || s.Counts.FailedConnections != 0 {
		t.Errorf("recorded as %+v", s.Counts)
	}
}

// TestNetworkSoak is as long as SOAK says, such as 10m: all kinds of connections, in order and broken off on either side.
func TestNetworkSoak(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("SOAK says how long, such as 10m; see `make soak`")
	}
	length, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		t.Fatal(err)
	}
	l := startLoad(t, length+commandTimeout)
	t.Log(l.ask("mixed 10s", commandTimeout)) // until everything is there that stays
	before := l.both()
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(max(length/20, time.Second))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				now := l.both()
				t.Logf("runner %v; guest %v", now[0], now[1])
			case <-done:
				return
			}
		}
	}()
	got := l.ask("mixed "+length.String(), length+commandTimeout)
	close(done)
	<-watched
	t.Log(got)
	if strings.Contains(got, "failed") {
		t.Errorf("not all went well: %s", got)
	}
	l.wantBack(before, loadMargin)
	s := l.end()
	t.Logf("recorded as %+v", s.Counts)
}
