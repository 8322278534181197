// Command gopeer stands for the programs that people write in Go: goroutines on several threads, child
// processes, timers, files, and servers on loopback. Built for 386 it stands for 32-bit programs,
// which have no sockets under the strict profile.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		fmt.Print("child")
		return
	}
	steps := []func() error{threads, child, file}
	if runtime.GOARCH != "386" {
		steps = append(steps, web, datagram)
	}
	for i, step := range steps {
		if err := step(); err != nil {
			fmt.Fprintf(os.Stderr, "step %d: %v\n", i, err)
			os.Exit(1)
		}
	}
	fmt.Println("gopeer works")
}

func threads() error {
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			runtime.LockOSThread()
			<-time.After(time.Millisecond)
		})
	}
	wg.Wait()
	return nil
}

func child() error {
	out, err := exec.Command("/proc/self/exe", "child").Output()
	if err == nil && string(out) != "child" {
		return fmt.Errorf("the child wrote %q", out)
	}
	return err
}

func file() error {
	name := os.TempDir() + "/gopeer"
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		return err
	}
	return os.Remove(name)
}

// web listens as Go does by default: it asks for MPTCP, and takes TCP when that is refused.
func web() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != "hello" {
		return fmt.Errorf("the server said %q", body)
	}
	return err
}

func datagram() error {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.WriteTo([]byte("x"), c.LocalAddr()); err != nil {
		return err
	}
	_, _, err = c.ReadFrom(make([]byte, 1))
	return err
}
