package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// pause is between two connections of a kind: the load is to last, not to fill the machine.
const pause = 20 * time.Millisecond

// mixed does all kinds of things at once for so long, and says how often each went as it should and how often not.
func mixed(d time.Duration) string {
	kinds := map[string]func() error{
		"spliced":    func() error { return get(client(false, "spliced.test"), "https://spliced.test/small", 200, -1, 0) },
		"inspected1": func() error { return get(client(false, ""), "https://example.com/small", 200, -1, 0) },
		"inspected2": func() error { return get(client(true, ""), "https://example.com/small", 200, -1, 0) },
		"forbidden":  func() error { return get(client(true, ""), "https://example.com/private", 403, -1, 0) },
		"aborted":    func() error { return get(client(false, "spliced.test"), "https://spliced.test/large", 200, 100_000, 0) },
		"aborted2":   func() error { return get(client(true, ""), "https://example.com/large", 200, 100_000, 0) },
		"slow":       func() error { return get(client(false, "spliced.test"), "https://spliced.test/large", 200, -1, pause) },
		"slow2":      func() error { return get(client(true, ""), "https://example.com/large", 200, -1, pause) },
		"reset":      reset,
		"hostresets": hostResets,
		"halfclosed": halfClosed,
		"names":      refusedName,
		"addresses":  refusedAddress,
		"short":      func() error { return short(echo) },
	}
	var all sync.WaitGroup
	var mu sync.Mutex // guards lines
	var lines []string
	for name, f := range kinds {
		all.Go(func() {
			line := repeat(name, d, f)
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, line)
		})
	}
	all.Wait()
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

func repeat(name string, d time.Duration, f func() error) string {
	var good, bad atomic.Int64
	var first error
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(pause) {
		if err := f(); err == nil {
			good.Add(1)
		} else if bad.Add(1) == 1 {
			first = err
		}
	}
	if first != nil {
		return fmt.Sprintf("%s %d failed %d: %v", name, good.Load(), bad.Load(), first)
	}
	return fmt.Sprintf("%s %d", name, good.Load())
}

// client makes a connection of its own. insecure is a name whose certificate is not looked at.
func client(http2 bool, insecure string) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(http2)
	protocols.SetHTTP1(!http2)
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: insecure != ""}, //nolint:gosec // the test's own server
	}}
}

// get reads so much of an answer (-1: all), with a pause after each piece.
func get(c *http.Client, url string, status int, limit int64, pause time.Duration) error {
	defer c.CloseIdleConnections()
	r, err := c.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != status {
		return fmt.Errorf("status %d", r.StatusCode)
	}
	for read := int64(0); limit < 0 || read < limit; {
		n, err := io.CopyN(io.Discard, r.Body, 64<<10)
		read += n
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		time.Sleep(pause)
	}
	return nil
}

func reset() error {
	c, err := net.Dial("tcp", echo)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := use(c); err != nil {
		return err
	}
	return c.(*net.TCPConn).SetLinger(0)
}

func hostResets() error {
	c, err := net.Dial("tcp", "resets.test:1000")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("no reset: %w", err)
	}
	return nil
}

func halfClosed() error {
	c, err := net.Dial("tcp", echo)
	if err != nil {
		return err
	}
	defer c.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, sent) {
		err = fmt.Errorf("%d bytes of %d came back", len(got), len(sent))
	}
	return err
}

var names atomic.Int64

func refusedName() error {
	addrs, err := net.LookupHost(fmt.Sprintf("n%d.evil.test", names.Add(1)))
	if err == nil {
		return fmt.Errorf("there is %s", addrs)
	}
	return nil
}

func refusedAddress() error {
	c, err := net.Dial("tcp", "140.82.114.22:22")
	if err != nil {
		return nil //nolint:nilerr // refused, as it should be
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("no reset: %w", err)
	}
	return nil
}
