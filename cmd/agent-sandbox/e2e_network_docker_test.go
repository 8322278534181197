//go:build docker

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/event"
)

// These tests let real programs inside reach real servers on this machine's loopback: the policy's `to` leads there.

// listener serves each connection with f, until the test ends.
func listener(t *testing.T, f func(*net.TCPConn)) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f(conn.(*net.TCPConn))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr()
}

func greet(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, "took %d bytes, %v\n", n, err)
		return
	}
	_, _ = fmt.Fprintf(w, "this is %s\n", r.Host)
}

// wantRefused looks for a refusal in the record.
func wantRefused(t *testing.T, s event.Summary, what string, is func(event.Refusal) bool) {
	t.Helper()
	for _, r := range s.Refused {
		if is(r) {
			return
		}
	}
	t.Errorf("%s is not on record: %+v", what, s.Refused)
}

// TestNetworkAllowed: TLS and plain HTTP to an allowed name, both directions; and what is beside it is refused.
func TestNetworkAllowed(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.HandlerFunc(greet))
	defer secure.Close()
	plain := httptest.NewServer(http.HandlerFunc(greet))
	defer plain.Close()
	u := newUser(t)
	u.policy(fmt.Sprintf("network:\n  allow:\n    - {host: shop.test, port: 443, to: %q}\n    - {host: shop.test, port: 80, to: %q}\n",
		secure.Listener.Addr(), plain.Listener.Addr()))
	// curl sees a reset while it connects (7) or later (56).
	r := u.sh(`was() { case $2 in 7|56) echo "$1: reset";; *) echo "$1: $2";; esac; }
curl -skS https://shop.test/ && curl -sS http://shop.test/ && head -c 3000000 /dev/zero >/tmp/up && curl -skS --data-binary @/tmp/up https://SHOP.test./
curl -sS -o /dev/null -w 'refused after %{time_total} s\n' https://evil.test/; echo "name: $?"
curl -sS -o /dev/null -w 'refused after %{time_total} s\n' http://shop.test:8080/; was port $?
curl -sS -o /dev/null -w 'refused after %{time_total} s\n' http://140.82.114.22:8080/; was address $?
python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("8.8.8.8", 8080))'; echo "datagram: $?"`)
	u.wantCode(r, 0)
	t.Log(r.stdout)
	for _, want := range []string{
		"this is shop.test\nthis is shop.test\ntook 3000000 bytes, <nil>\n", "name: 6\n", "port: reset\n", "address: reset\n", "datagram: 1\n",
	} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in the output:\n%s%s", want, r.stdout, r.stderr)
		}
	}
	s := u.wantOutcome(event.Success, 0)
	if s.HostCount != 2 || s.Counts.AllowedConnections != 3 || s.Counts.FailedConnections != 0 || s.Counts.Up < 3000000 {
		t.Errorf("recorded as %+v, %+v", s.Hosts, s.Counts)
	}
	wantRefused(t, s, "the name", func(r event.Refusal) bool { return r.Name == "evil.test" && r.Proto == "dns" && r.Add == "evil.test" })
	wantRefused(t, s, "the port", func(r event.Refusal) bool { return r.Name == "shop.test" && r.Port == 8080 })
	wantRefused(t, s, "the address", func(r event.Refusal) bool { return r.Address == "140.82.114.22" && r.Port == 8080 })
	wantRefused(t, s, "the datagram", func(r event.Refusal) bool { return r.Address == "8.8.8.8" && r.Proto == "udp" })
	for _, want := range []string{"  reached   shop.test:443, 2 connections", "  to allow  ", "      - evil.test\n"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("the end of the run does not say %q:\n%s", want, r.stderr)
		}
	}
	shown := u.finish(u.command("show", "last"))
	if !strings.Contains(shown.stdout, "host        shop.test port 443: 2 connections") || !strings.Contains(shown.stdout, "- evil.test") {
		t.Errorf("show says\n%s", shown.stdout)
	}
}

// TestNetworkServerName: the address of an allowed name does not open another.
func TestNetworkServerName(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.HandlerFunc(greet))
	defer secure.Close()
	u := newUser(t)
	u.policy(fmt.Sprintf("network: {allow: [{host: shop.test, port: 443, to: %q}]}\n", secure.Listener.Addr()))
	r := u.sh(`ip=$(getent ahostsv4 shop.test | head -n1 | cut -d' ' -f1)
curl -skS --resolve shop.test:443:$ip https://shop.test/; echo "control: $?"
curl -skS --resolve evil.test:443:$ip https://evil.test/; echo "mismatch: $?"`)
	u.wantCode(r, 0)
	if !strings.Contains(r.stdout, "this is shop.test\ncontrol: 0\n") || !strings.Contains(r.stdout, "mismatch: 35\n") {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
	wantRefused(t, u.summary(), "the mismatch", func(r event.Refusal) bool {
		return r.Name == "shop.test" && strings.Contains(r.Reason, `"evil.test"`)
	})
}

// TestNetworkEnds: a half-closed connection goes on, a reset is a reset, and a host that is down is one too.
func TestNetworkEnds(t *testing.T) {
	t.Parallel()
	answers := listener(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		_, _ = fmt.Fprintf(c, "read %d to the end", len(b))
	})
	resets := listener(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "half")
		_, _ = io.ReadFull(c, make([]byte, 4))
		_ = c.SetLinger(0)
	})
	down := listener(t, func(*net.TCPConn) {})
	_, downPort, err := net.SplitHostPort(down.String())
	if err != nil {
		t.Fatal(err)
	}
	u := newUser(t)
	u.policy(fmt.Sprintf(`network:
  allow:
    - {host: answers.test, port: 1000, tcp: true, to: %q}
    - {host: resets.test, port: 1000, tcp: true, to: %q}
    - {host: down.test, port: 1000, tcp: true, to: "127.0.0.2:%s"}
`, answers, resets, downPort))
	u.write("try.py", `
import socket
def dial(name):
    return socket.create_connection((name, 1000), timeout=20)
c = dial("answers.test"); c.sendall(b"x" * 100000); c.shutdown(socket.SHUT_WR)
print("half-closed:", c.makefile("rb").read().decode())
c = dial("resets.test"); print("before:", c.recv(4).decode()); c.sendall(b"more")
try: print("after: an end", c.recv(10))
except ConnectionResetError: print("after: reset")
try: c = dial("down.test"); print("down: an end", c.recv(10))
except (ConnectionResetError, ConnectionRefusedError): print("down: reset")
`, 0o644)
	r := u.run("--", "python3", "try.py")
	u.wantCode(r, 0)
	if want := "half-closed: read 100000 to the end\nbefore: half\nafter: reset\ndown: reset\n"; r.stdout != want {
		t.Errorf("it went\n%s, want\n%s%s", r.stdout, want, r.stderr)
	}
	s := u.summary()
	if s.Counts.AllowedConnections != 2 || s.Counts.FailedConnections != 1 {
		t.Errorf("recorded as %+v", s.Hosts)
	}
}

// TestNetworkRunnerKilled: the host sees a connection break off, and nothing is left.
func TestNetworkRunnerKilled(t *testing.T) {
	t.Parallel()
	got, ended := make(chan string, 1), make(chan error, 1)
	host := listener(t, func(c *net.TCPConn) {
		b := make([]byte, 5)
		_, _ = io.ReadFull(c, b)
		got <- string(b)
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})
	u := newUser(t)
	u.policy(fmt.Sprintf("network: {allow: [{host: shop.test, port: 1000, tcp: true, to: %q}]}\n", host))
	p := u.start("--", "python3", "-c", "import socket, time\nc = socket.create_connection(('shop.test', 1000)); c.sendall(b'hello'); print('ready', flush=True); time.sleep(1000)")
	p.line("ready")
	if s := <-got; s != "hello" {
		t.Errorf("the host got %q", s)
	}
	run := string(u.last().ID)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.wait()
	<-ended
	eventually(t, leftoverLimit, func() (bool, string) {
		left := u.leftovers(run)
		return len(left) == 0, fmt.Sprintf("left are %q", left)
	})
}

// TestNetworkPolicyRefused: what this version can't keep stops the run, with its place, before anything is made.
func TestNetworkPolicyRefused(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("credentials: {github: {from: \"env:TOKEN\", repositories: [self]}}\n")
	r := u.sh("echo never")
	if r.code == 0 || strings.Contains(r.stdout, "never") || !strings.Contains(r.stderr, policyFile+":2:") {
		t.Errorf("%+v", r)
	}
}

// TestNetworkCAFile: a file that is no certificate is the caller's mistake.
func TestNetworkCAFile(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.write("ca.pem", "nothing", 0o644)
	if r := u.run("--ca-file", "ca.pem", "--", "true"); r.code != exitUsage || !strings.Contains(r.stderr, "ca.pem has no certificate") {
		t.Errorf("%+v", r)
	}
}

// TestPolicyLearnCommand: everything public is allowed while the command runs, and nothing else; what it tried to reach is
// proposed, whether or not this machine's network has it.
func TestPolicyLearnCommand(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.policy("network: {allow: [kept.example.org], deny: [denied.example.com]} # a comment\n")
	r := u.finish(u.command("policy", "learn", "--image", testImage(), "--", "sh", "-c", `
		for host in shop.example.com kept.example.org denied.example.com; do curl -sS -o /dev/null --max-time 20 https://$host/; done
		curl -sS -o /dev/null http://192.168.7.7:8080/; echo output; exit 3`))
	u.wantCode(r, 3)
	if !strings.Contains(r.stdout, "+") || !strings.Contains(r.stdout, "shop.example.com") || strings.Contains(r.stdout, "output") {
		t.Errorf("the answer is %q", r.stdout)
	}
	for _, not := range []string{"denied.example.com\"", "192.168.7.7"} {
		if added := strings.Split(r.stdout, "\n"); slices.ContainsFunc(added, func(line string) bool {
			return strings.HasPrefix(line, "+") && strings.Contains(line, "- ") && strings.Contains(line, not)
		}) {
			t.Errorf("%s is proposed: %s", not, r.stdout)
		}
	}
	s := u.wantOutcome(event.Failure, 3)
	if !slices.ContainsFunc(s.Lowered, func(l event.Lowered) bool { return l.What == "network" && strings.Contains(l.Why, "everything public") }) {
		t.Errorf("recorded as lowered: %+v", s.Lowered)
	}
	for _, host := range []string{"denied.example.com", "192.168.7.7"} {
		if !slices.ContainsFunc(s.Refused, func(r event.Refusal) bool { return r.Name == host || r.Address == host }) {
			t.Errorf("%s was not refused: %+v", host, s.Refused)
		}
	}
}
