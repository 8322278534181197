// Command load is the client of the load tests. It does what its input says, line by line, and answers each line with one.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// echo is the address of the server that sends back what it gets.
const echo = "echo.test:1000"

func main() {
	in := bufio.NewScanner(os.Stdin)
	var held []net.Conn
	for in.Scan() {
		var err error
		word, rest, _ := strings.Cut(in.Text(), " ")
		answer := "done"
		switch word {
		case "namespace":
			answer, err = os.Readlink("/proc/self/ns/pid")
		case "open":
			held, err = open(number(rest))
		case "use":
			err = each(len(held), 50, func(i int) error { return use(held[i]) })
		case "close":
			err = each(len(held), 50, func(i int) error { return held[i].Close() })
		case "short":
			err = each(number(rest), 1, func(int) error { return short(echo) })
		case "crowd":
			// One address has 28,000 ports to be dialled from, each of which is taken for a minute.
			err = each(number(rest), 50, func(i int) error { return short(fmt.Sprintf("echo%d.test:1000", i%8)) })
		case "files":
			err = each(number(rest), 4, file)
		case "mixed":
			var d time.Duration
			if d, err = time.ParseDuration(rest); err == nil {
				answer = mixed(d)
			}
		}
		if err != nil {
			answer = err.Error()
		}
		fmt.Println(strings.ReplaceAll(answer, "\n", " "))
	}
}

func number(s string) (n int) {
	_, _ = fmt.Sscan(s, &n)
	return n
}

// each calls f for each number below n, so many at once, and returns the first error.
func each(n, parallel int, f func(int) error) error {
	var all sync.WaitGroup
	work, errs := make(chan int), make(chan error, parallel)
	for range parallel {
		all.Go(func() {
			for i := range work {
				if err := f(i); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	all.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func open(n int) ([]net.Conn, error) {
	conns := make([]net.Conn, n)
	err := each(n, 50, func(i int) (err error) {
		if conns[i], err = net.DialTimeout("tcp", echo, time.Minute); err != nil {
			return err
		}
		return use(conns[i])
	})
	return conns, err
}

// use sends a line and wants it back.
func use(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && line != "hello\n" {
		err = fmt.Errorf("got %q back", line)
	}
	return err
}

// file makes one of many small files, a hundred in each directory.
func file(i int) error {
	dir := fmt.Sprintf("made/d%d", i/100)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(fmt.Sprintf("%s/f%d", dir, i), fmt.Appendf(nil, "file %d\n", i), 0o644)
}

func short(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Minute)
	if err != nil {
		return err
	}
	defer c.Close()
	return use(c)
}
