package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What is sent to a host that the policy allows. Certificates are not looked at: an attacker wouldn't either.

func webOps() map[string]operation {
	return map[string]operation{
		"send":  {4, func(a []string) (string, error) { return send(a[0], a[1], a[2], a[3]) }},
		"hello": {3, func(a []string) (string, error) { return sayHello(a[0], a[1], a[2]) }},
		"fetch": {4, func(a []string) (string, error) { return fetch(a[0], a[1], a[2], a[3:]) }},
		"many":  {3, func(a []string) (string, error) { return many(a[0], a[1], a[2]) }},
		"slow":  {5, func(a []string) (string, error) { return slow(a[0], a[1], a[2], a[3], a[4]) }},
	}
}

// statusError is a refusal in the words of HTTP.
type statusError int

func (s statusError) Error() string { return "status " + strconv.Itoa(int(s)) }

// expand puts in what stands for a secret inside, whole, in halves, and as Basic has it.
func expand(s string) string {
	token := os.Getenv("ESCAPE_TOKEN")
	half := len(token) / 2
	return strings.NewReplacer(
		"{token}", token, "{megabyte}", strings.Repeat("m", 1<<20), "{bot}", os.Getenv("ESCAPE_BOT"), "{first half}", token[:half], "{second half}", token[half:],
		"{basic}", base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token)),
	).Replace(s)
}

// connect dials; server is a TLS server name, "none" for TLS without one, and empty or "raw" for no TLS.
func connect(to, server string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", to, patience)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil || server == "" || server == "raw" {
		return conn, err
	}
	secure := tls.Client(conn, &tls.Config{ServerName: strings.TrimPrefix(server, "none"), InsecureSkipVerify: true})
	return secure, secure.Handshake()
}

// send sends text, in pieces where it has "{pause}", and reads so many answers. The worst counts.
func send(to, server, text, answers string) (string, error) {
	want, err := strconv.Atoi(answers)
	if err != nil {
		return "", err
	}
	conn, err := connect(to, server)
	if conn != nil {
		defer conn.Close()
	}
	if err != nil {
		return "", err
	}
	for piece := range strings.SplitSeq(expand(text), "{pause}") {
		if _, err := io.WriteString(conn, piece); err != nil {
			return "", err
		}
	}
	return readAnswers(bufio.NewReader(conn), want)
}

func readAnswers(from *bufio.Reader, want int) (string, error) {
	var all []string
	var worst error
	for range want {
		answer, err := http.ReadResponse(from, nil)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = syscall.ECONNRESET
		}
		if err != nil {
			return strings.Join(all, " | "), err
		}
		said, err := describe(answer)
		all = append(all, said)
		if err != nil {
			worst = err
		}
	}
	return strings.Join(all, " | "), worst
}

// describe has an answer's status, the headers that the servers of the suite set, and the beginning of its body.
func describe(answer *http.Response) (string, error) {
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1024))
	said := fmt.Sprintf("%d %s %s", answer.StatusCode, answer.Header.Get("X-Echo"), body)
	if answer.StatusCode >= http.StatusBadRequest {
		err = statusError(answer.StatusCode)
	}
	return said, err
}

// sayHello makes a TLS handshake for a server, with the server name encrypted if there is a list of ECH configurations in hex,
// and asks for a path.
func sayHello(to, server, list string) (string, error) {
	configs, err := hex.DecodeString(list)
	if err != nil {
		return "", err
	}
	conn, err := net.DialTimeout("tcp", to, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	secure := tls.Client(conn, &tls.Config{
		ServerName: server, InsecureSkipVerify: true, EncryptedClientHelloConfigList: configs, MinVersion: tls.VersionTLS13,
		EncryptedClientHelloRejectionVerify: func(tls.ConnectionState) error { return nil },
	})
	if err := secure.Handshake(); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(secure, "GET /open/hello HTTP/1.1\r\nHost: %s\r\n\r\n", server); err != nil {
		return "", err
	}
	return readAnswers(bufio.NewReader(secure), 1)
}

// fetch asks for URLs one after the other on one connection, by a protocol ("h1", "h2"), with a method and header lines; redirects are followed.
// The worst answer counts.
func fetch(protocol, method, headers string, urls []string) (string, error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: protocol == "h2"}
	client := &http.Client{Transport: transport, Timeout: 2 * patience}
	var all []string
	var worst error
	reused := true
	trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }}
	for i, url := range urls {
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), method, url, nil)
		if err != nil {
			return "", err
		}
		for line := range strings.SplitSeq(expand(headers), "\n") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				req.Header.Add(name, value)
			}
		}
		answer, err := client.Do(req)
		if err != nil {
			return strings.Join(all, " | "), err
		}
		said, err := describe(answer)
		all = append(all, answer.Proto+" "+said)
		switch {
		case i > 0 && !reused:
			return strings.Join(all, " | "), errors.New("not on the same connection")
		case err != nil:
			worst = err
		}
	}
	return strings.Join(all, " | "), worst
}

// many sends a request on so many connections that are open at once, and reports how many were answered.
func many(to, text, count string) (string, error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return "", err
	}
	results := make(chan error, n)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range n {
		conn, err := connect(to, "")
		if err != nil {
			results <- err
			continue
		}
		conns = append(conns, conn)
		go func() {
			_, err := io.WriteString(conn, text)
			if err == nil {
				_, err = readAnswers(bufio.NewReader(conn), 1)
			}
			results <- err
		}()
	}
	answered, last := 0, error(nil)
	for range n {
		if err := <-results; err != nil {
			last = err
		} else {
			answered++
		}
	}
	return strconv.Itoa(answered), last
}

// slow sends a beginning and then a piece every 100 ms, for a duration; an empty piece is sent never. A connection that is still open
// then is one that can be kept so.
func slow(to, server, text, piece, duration string) (string, error) {
	d, err := time.ParseDuration(duration)
	if err != nil {
		return "", err
	}
	conn, err := connect(to, server)
	if conn != nil {
		defer conn.Close()
	}
	if err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	var said string
	go func() {
		var err error
		said, err = readAnswers(bufio.NewReader(conn), 1)
		if err == nil {
			err = errors.New("an answer came")
		}
		ended <- err
	}()
	end, next := time.NewTimer(d), time.NewTicker(100*time.Millisecond)
	defer end.Stop()
	defer next.Stop()
	for {
		select {
		case err := <-ended:
			return said, err
		case <-end.C:
			return "", nil
		case <-next.C:
			_, _ = io.WriteString(conn, piece) // the reader sees the end
		}
	}
}
