//go:build docker

package runner

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
)

// The tests of a sandbox on an engine that grants no CAP_NET_ADMIN: what works with the capture works here as well, and what
// does not leave does not leave here either. Less of it is seen.

const withoutCapture = "network:\n  capture: auto\n"

// noAdmin is such an engine.
func noAdmin(policy string) setup {
	return setup{policy: policy, seam: seam{container: engine.Weakened{NoNetAdmin: true}}}
}

// shell runs a script in a setup; the run must succeed.
func (l *lab) shell(t *testing.T, s setup, script string) *box {
	t.Helper()
	b := l.start(t, s, []string{"bash", "-c", script}, nil)
	if b.err != nil || b.result.ExitCode != 0 {
		t.Fatalf("exit status %d, %v\n%s%s", b.result.ExitCode, b.err, b.stdout, b.stderr)
	}
	t.Logf("%s%s", b.stdout, b.stderr)
	return b
}

// wantOutput looks for lines of the output.
func (b *box) wantOutput(t *testing.T, lines ...string) {
	t.Helper()
	have := strings.Split(string(b.stdout), "\n")
	for _, want := range lines {
		if !slices.Contains(have, want) {
			t.Errorf("no line %q in\n%s%s", want, b.stdout, b.stderr)
		}
	}
}

// lowered is what the record says of a lowered network.
func (b *box) lowered() []event.Lowered {
	var all []event.Lowered
	for _, e := range b.events {
		if l, ok := e.(event.Lowered); ok && l.What == "network" {
			all = append(all, l)
		}
	}
	return all
}

func hostPort(t *testing.T, s *httptest.Server) string {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// gitServer serves a bare repository of one commit over "dumb" HTTP.
func gitServer(t *testing.T) *httptest.Server {
	t.Helper()
	dir := t.TempDir()
	script := `set -e; cd "$1"; export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b.test
git init -q work; echo hello >work/README; git -C work add .; git -C work commit -qm one; git clone -q --bare work shop.git; git -C shop.git update-server-info`
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(s.Close)
	return s
}

func greeting(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprintf(w, "this is %s\n", r.Host) }

// TestFallbackWorks: programs reach what the policy allows, by name, with no setting of theirs.
func TestFallbackWorks(t *testing.T) {
	l := testLab(t)
	secure, plain := httptest.NewTLSServer(http.HandlerFunc(greeting)), httptest.NewServer(http.HandlerFunc(greeting))
	defer secure.Close()
	defer plain.Close()
	b := l.shell(t, noAdmin(withoutCapture+fmt.Sprintf(`  allow:
    - {host: shop.test, port: 443, to: %[1]q}
    - {host: shop.test, port: 80, to: %[2]q}
    - {host: a.wild.test, port: 8080, to: %[2]q}
    - {host: "*.wild.test", port: "8080-8090", tcp: true}
    - {host: git.test, port: 80, to: %[3]q}
`, hostPort(t, secure), hostPort(t, plain), hostPort(t, gitServer(t)))), `
curl -skS https://shop.test/; curl -4 -sS http://shop.test/; curl -sS http://a.wild.test:8080/; curl -sS http://SHOP.test./
python3 -c 'import urllib.request as u; print("python:", u.urlopen("http://shop.test/").read().decode())'
node -e 'fetch("http://shop.test/").then(r => r.text()).then(t => console.log("node:", t))'
cd /tmp && git clone -q http://git.test/shop.git && echo "git: $(cat shop/README)"
address() { getent ahosts "$1" | head -n1 | cut -d' ' -f1; }
a=$(address shop.test); b=$(address b.wild.test); c=$(address shop.test)
[ -n "$a" ] && [ "$a" = "$c" ] && [ "$a" != "$b" ] && echo "an address for each name"
curl -sS http://localhost:9 2>/dev/null; echo "nobody on localhost: $?"
python3 -c 'import socket; s = socket.socket(); s.bind(("0.0.0.0", 3000)); s.listen(); print("own server:", socket.create_connection(("localhost", 3000)) is not None)'`)
	b.wantOutput(t, "this is shop.test", "this is a.wild.test:8080", "this is SHOP.test.", "python: this is shop.test", "node: this is shop.test", "git: hello",
		"an address for each name", "nobody on localhost: 7", "own server: True")
	if got := strings.Count(string(b.stdout), "this is shop.test"); got != 4 {
		t.Errorf("%d answers of shop.test, want 4", got)
	}
	for _, host := range []string{"shop.test", "a.wild.test", "git.test"} {
		if !b.has(func(e event.Event) bool {
			c, ok := e.(event.Connection)
			return ok && c.Name == host && c.Outcome == event.ConnectionAllowed
		}) {
			t.Errorf("no connection to %s is on record", host)
		}
	}
	if low := b.lowered(); len(low) != 1 || !strings.Contains(low[0].Why, "grants no CAP_NET_ADMIN") || !strings.Contains(low[0].Why, "records") || low[0].Mend == "" {
		t.Errorf("recorded as lowered: %+v", low)
	}
	if s := b.result.Summary; s.Counts.Lowered != 1 || len(s.Lowered) != 1 || s.Measured == nil || s.Measured.Network.TCP || !s.Measured.Network.Listeners {
		t.Errorf("the summary has %+v, %+v", s.Lowered, s.Measured)
	}
	plan, err := os.ReadFile(filepath.Join(b.result.Dir, "plan.json"))
	if err != nil || !strings.Contains(string(plan), `"what": "network"`) || !strings.Contains(string(plan), `"fallback": "the engine grants no CAP_NET_ADMIN"`) || strings.Contains(string(plan), `"capture": true`) {
		t.Errorf("the plan does not say so: %v\n%s", err, plan)
	}
}

// TestFallbackRefuses: what the policy does not allow fails at once. The controls are in the same run.
func TestFallbackRefuses(t *testing.T) {
	l := testLab(t)
	secure := httptest.NewTLSServer(http.HandlerFunc(greeting))
	defer secure.Close()
	b := l.shell(t, noAdmin(withoutCapture+fmt.Sprintf("  allow: [{host: shop.test, port: 443, to: %q}, 140.82.114.22]\n", hostPort(t, secure))), `
ip=$(getent ahosts shop.test | head -n1 | cut -d' ' -f1)
curl -skS --resolve shop.test:443:$ip https://shop.test/; echo "control: $?"
curl -skS --resolve evil.test:443:$ip https://evil.test/; echo "mismatch: $?"
curl -sS https://evil.test/; echo "name: $?"
curl -sS http://shop.test:8080/; echo "port: $?"
curl -sS https://8.8.8.8/; echo "address: $?"
curl -sS https://140.82.114.22/; echo "allowed address: $?"
curl -sS http://169.254.169.254/; echo "metadata: $?"
curl -g -sS 'http://[2606:4700::1111]/'; echo "IPv6: $?"
python3 - <<END
import errno, socket
def attempt(what, kind, to):
    s = socket.socket(socket.AF_INET, kind)
    s.settimeout(10)
    try:
        s.connect(to); s.send(b"x"); print(what, "went out")
    except OSError as e: print(what, errno.errorcode.get(e.errno, e))
attempt("tcp:", socket.SOCK_STREAM, ("8.8.8.8", 53))
attempt("udp:", socket.SOCK_DGRAM, ("8.8.8.8", 53))
attempt("unknown loopback:", socket.SOCK_STREAM, ("127.64.200.1", 443))
END
`)
	b.wantOutput(t, "this is shop.test", "control: 0", "mismatch: 35", "name: 6", "port: 7", "address: 7", "allowed address: 7", "metadata: 7", "IPv6: 7",
		"tcp: ENETUNREACH", "udp: ENETUNREACH", "unknown loopback: ECONNREFUSED")
	if !b.has(refusedName("evil.test")) {
		t.Error("the name is not on record")
	}
	if !b.has(func(e event.Event) bool {
		c, ok := e.(event.ConnectionRefused)
		return ok && c.Name == "shop.test" && strings.Contains(c.Reason, `"evil.test"`)
	}) {
		t.Error("the mismatch is not on record")
	}
}

// TestFallbackAgentListens: a port that the agent has taken is its own, and what it takes away it takes from itself alone.
func TestFallbackAgentListens(t *testing.T) {
	l := testLab(t)
	plain := httptest.NewServer(http.HandlerFunc(greeting))
	defer plain.Close()
	b := l.shell(t, noAdmin(withoutCapture+fmt.Sprintf(
		"  allow: [{host: a.shop.test, port: [80, 8080], to: %[1]q}, {host: b.shop.test, port: 8080, to: %[1]q}]\n", hostPort(t, plain))), `python3 - <<END
import socket, urllib.request as u
get = lambda url: u.urlopen(url, timeout=20).read().decode().strip()
own = socket.socket(); own.bind(("0.0.0.0", 8080)); own.listen()
print("beside it:", get("http://a.shop.test/"))
dialled = socket.create_connection(("a.shop.test", 8080)); peer, _ = own.accept(); peer.sendall(b"me"); print("taken:", dialled.recv(2).decode())
own.close(); peer.close(); dialled.close()
print("afterwards:", get("http://b.shop.test:8080/"))
try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.0.0.53", 53)); print("the resolver's place is free")
except OSError as e: print("the resolver's place:", e.strerror)
END`)
	b.wantOutput(t, "beside it: this is a.shop.test", "taken: me", "afterwards: this is b.shop.test:8080", "the resolver's place: Address already in use")
}

// TestFallbackEnds: a half-closed connection goes on to the end.
func TestFallbackEnds(t *testing.T) {
	l := testLab(t)
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := server.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c)
		_, _ = fmt.Fprintf(c, "read %d to the end\n", len(b))
		_ = c.Close()
	}()
	t.Cleanup(func() { _ = server.Close(); <-done })
	b := l.shell(t, noAdmin(withoutCapture+fmt.Sprintf("  allow: [{host: db, port: 5432, tcp: true, to: %q}]\n", server.Addr())), `python3 - <<END
import socket
c = socket.create_connection(("db", 5432)); c.sendall(b"x" * 1000000); c.shutdown(socket.SHUT_WR)
print(c.makefile().read().strip())
END`)
	b.wantOutput(t, "read 1000000 to the end")
}

// TestFallbackIsAsked: nobody gets less than the capture without having said so, and nobody who said so gets less than there is.
func TestFallbackIsAsked(t *testing.T) {
	l := testLab(t)
	b := l.start(t, noAdmin(""), []string{"sh", "-c", "echo started"}, nil)
	refused, ok := errors.AsType[*RefusedError](b.err)
	if !ok || !strings.Contains(refused.Reason, "can't be captured: the engine grants no CAP_NET_ADMIN") || !strings.Contains(refused.Hint, "capture: auto") {
		t.Errorf("an engine that grants no CAP_NET_ADMIN: %v", b.err)
	}
	if f := b.finished(); f.Outcome != event.Refused || len(b.stdout) > 0 {
		t.Errorf("recorded as %+v, output %q", f, b.stdout)
	}
	b = l.start(t, setup{policy: withoutCapture}, []string{"sh", "-c", "echo started"}, nil)
	if b.err != nil || string(b.stdout) != "started\n" || len(b.lowered()) > 0 || !b.result.Summary.Measured.Network.TCP {
		t.Errorf("an engine that grants it, with auto: %v, %q, lowered %+v", b.err, b.stdout, b.lowered())
	}
	// The rules are there, and dials do not arrive: also a capture that can't be had.
	b = l.start(t, setup{policy: withoutCapture, guest: []string{"rules"}}, []string{"sh", "-c", "echo started"}, nil)
	if b.err != nil || string(b.stdout) != "started\n" || len(b.lowered()) != 1 || !strings.Contains(b.lowered()[0].Why, "does not arrive at the relay") {
		t.Errorf("a capture that does not work: %v, %q, lowered %+v", b.err, b.stdout, b.lowered())
	}
}

// TestFallbackAttacks makes the attacks on the network that the escape suite has. They fail as well, though most leave no trace.
func TestFallbackAttacks(t *testing.T) {
	l := testLab(t)
	attacks := networkAttacks(l.hostServices(t))
	all := steps(attacks, func(a attack) bool { return a.name != "listening in the relay's place" }) // there is no such place
	all[0].Args = []string{"22,80,443,853,2375,3128,8080"}                                           // UDP port 53 is the resolver's
	b := l.try(t, noAdmin(withoutCapture), all)
	if b.err != nil {
		t.Fatalf("%v\n%s", b.err, b.stderr)
	}
	for _, c := range slices.Concat(controls(), all[:1]) {
		if got := b.answers[c.Name]; got.Answer != "ok" {
			t.Errorf("the control %q does not work: %+v", c.Name, got)
		}
	}
	tried := 0
	for _, a := range attacks {
		got, made := b.answers[a.name]
		if !made {
			continue
		}
		tried++
		if got.Answer == "ok" || slices.Contains(a.leaks, got.Answer) {
			t.Errorf("%s: %+v", a.name, got)
		}
	}
	if tried < len(attacks)/2 {
		t.Errorf("only %d of %d attacks were tried", tried, len(attacks))
	}
	for _, name := range []string{"host.docker.internal", "metadata.google.internal"} {
		if !b.has(refusedName(name)) {
			t.Errorf("the look-up of %s is not on record", name)
		}
	}
	t.Logf("%d attacks", tried)
}
