package runner

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/link"
)

// TestConnectLeavesNothing: two thousand connections that were open at once, and ended in all ways, leave no goroutine.
func TestConnectLeavesNothing(t *testing.T) {
	const count = 2000
	p := service(t, func(c *net.TCPConn) {
		go func() { // the test ends when none of these is left
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	})
	r, _ := newRun(t, Config{Policy: p})
	box, guest := newBox(t, r)
	var resets link.Resets
	go guest.obey(&resets)
	before := runtime.NumGoroutine()
	guest.exchange(&resets, count)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; <-tick.C {
		if time.Now().After(end) {
			stacks := make([]byte, 64<<10)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
	finish(t, r, box)
}

// exchange opens so many connections, uses them while all are open, and ends every third with a reset.
func (g *fakeGuest) exchange(resets *link.Resets, count int) {
	g.t.Helper()
	conns := make([]*agentConn, count)
	for i := range conns {
		conns[i] = g.dial(resets, "shop.test", 443)
	}
	for _, c := range conns {
		if _, err := c.Write([]byte("hello")); err != nil {
			g.t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			g.t.Fatal(err)
		}
	}
	for i, c := range conns {
		if i%3 == 0 {
			if err := c.Reset(); err != nil {
				g.t.Fatal(err)
			}
		}
		c.Finish(time.Minute)
	}
}
