package egress

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// bridge gives programs of the host a way in: what they open to its address is dialled inside.
func (s *sandbox) bridge(name string, port int) {
	s.t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port))
	if err != nil {
		s.t.Skipf("no second loopback address: %v", err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { s.join(conn, name, port) })
		}
	})
	s.t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
}

func (s *sandbox) join(conn net.Conn, name string, port int) {
	defer conn.Close()
	inside, err := s.dial(name, port)
	if err != nil {
		return
	}
	defer inside.Close()
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(inside, conn)
		_ = inside.CloseWrite()
	})
	_, _ = io.Copy(conn, inside)
	_ = conn.Close()
	up.Wait()
}

// repository is a git server over a bare repository with one commit.
func repository(t *testing.T) (http.Handler, string) {
	t.Helper()
	dir := t.TempDir()
	git(t, dir, "init", "-q", "--bare", "repo.git")
	git(t, filepath.Join(dir, "repo.git"), "config", "http.receivepack", "true")
	work := filepath.Join(dir, "work")
	git(t, dir, "clone", "-q", "repo.git", work)
	git(t, work, "commit", "-q", "--allow-empty", "-m", "first")
	git(t, work, "push", "-q", "origin", "HEAD:main")
	program, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{Path: program, Args: []string{"http-backend"}, Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=agent"}, Stderr: discard{}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "x-access-token" || password != realToken {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}), dir
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := gitCommand(dir, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func gitCommand(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
	return cmd
}

func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed", program)
	}
}

// program is a host below a wildcard, so that the constraint of the authority is the odd kind, and a file with the authority.
func (p *pki) program(handler http.HandlerFunc) (s *sandbox, port int, ca string) {
	b := p.backend("api.wild.example", true, handler)
	c := token(p.t, "*.wild.example")
	c.Scheme, c.Username = Basic, "x-access-token"
	s = newSandboxWith(p.t, Config{
		Policy: mustPolicy(p.t, "  allow: [{host: \"*.wild.example\", port: %d, private: true, rules: [\"GET /open/**\", \"* /repo.git/**\"]}]\n", b.port),
		CAs:    [][]byte{p.pem}, Credentials: []Credential{c},
	}, map[string][]string{"api.wild.example": {"127.0.0.1"}})
	s.bridge("api.wild.example", b.port)
	ca = filepath.Join(p.t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, s.g.Authority(), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return s, b.port, ca
}

// Each asks for what is allowed and for what is not, and prints status and body.
const (
	pythonProgram = `
import http.client, ssl, sys
class C(http.client.HTTPSConnection):
    def connect(self):
        http.client.HTTPConnection.connect(self)
        self.sock = self._context.wrap_socket(self.sock, server_hostname="api.wild.example")
c = C("127.0.0.2", int(sys.argv[1]), context=ssl.create_default_context(cafile=sys.argv[2]), timeout=20)
for path in ("/open/x", "/closed/x"):
    c.request("GET", path, headers={"Host": "api.wild.example:" + sys.argv[1]})
    r = c.getresponse()
    print(r.status, r.read().decode().strip())
`
	nodeProgram = `
const https = require("https"), [port, ca] = process.argv.slice(1);
const agent = new https.Agent({keepAlive: true, maxSockets: 1});
const get = path => new Promise((done, fail) => https.get({host: "127.0.0.2", port, path, agent, servername: "api.wild.example",
  ca: require("fs").readFileSync(ca), headers: {host: "api.wild.example:" + port}}, r => {
    let all = ""; r.on("data", d => all += d).on("end", () => { console.log(r.statusCode, all.trim()); done() });
  }).on("error", fail));
(async () => { await get("/open/x"); await get("/closed/x"); agent.destroy() })();
`
	javaProgram = `
import java.net.URI; import java.net.http.*; import java.nio.file.*; import java.security.*; import java.security.cert.*; import javax.net.ssl.*;
class Get {
  public static void main(String[] a) throws Exception {
    var store = KeyStore.getInstance("PKCS12");
    store.load(null, null);
    try (var in = Files.newInputStream(Path.of(a[1]))) {
      store.setCertificateEntry("run", CertificateFactory.getInstance("X.509").generateCertificate(in));
    }
    var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(store);
    var tls = SSLContext.getInstance("TLS");
    tls.init(null, trust.getTrustManagers(), null);
    var client = HttpClient.newBuilder().sslContext(tls).build();
    for (var path : new String[]{"/open/x", "/closed/x"}) {
      var request = HttpRequest.newBuilder(URI.create("https://api.wild.example:" + a[0] + path)).build();
      var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
      System.out.println(answer.statusCode() + " " + answer.body().trim());
    }
  }
}
`
)

// TestPrograms are real clients with three TLS libraries among them; each gets what is allowed, and is told about what is not.
func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"Get.java": javaProgram, "hosts": "127.0.0.2 api.wild.example\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	curl := func(version string) func(port, ca string) []string {
		return func(port, ca string) []string {
			url := "https://api.wild.example:" + port
			return []string{"curl", "-sS", "--max-time", "20", version, "--cacert", ca, "--resolve", "api.wild.example:" + port + ":127.0.0.2", "-w", "\n%{http_code}\n", url + "/open/x", url + "/closed/x"}
		}
	}
	for name, command := range map[string]func(port, ca string) []string{
		"curl, HTTP/1.1": curl("--http1.1"),
		"curl, HTTP/2":   curl("--http2"),
		"python3":        func(port, ca string) []string { return []string{"python3", "-c", pythonProgram, port, ca} },
		"java": func(port, ca string) []string {
			return []string{"java", "-Djdk.net.hosts.file=" + filepath.Join(dir, "hosts"), filepath.Join(dir, "Get.java"), port, ca}
		},
		"node": func(port, ca string) []string { return []string{"node", "-e", nodeProgram, port, ca} },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPKI(t)
			s, port, ca := p.program(func(w http.ResponseWriter, r *http.Request) {
				user, password, _ := r.BasicAuth()
				fmt.Fprintf(w, "hello %s %v", user, password == realToken)
			})
			args := command(fmt.Sprint(port), ca)
			needs(t, args[0])
			out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{"hello x-access-token true", "200", "403", `"allow":"{host: api.wild.example`} {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q in %s", want, out)
				}
			}
			s.rec.request(2)
			for _, r := range s.rec.requests() { // of HTTP/2 in any order
				if (r.Outcome == Refused) != (r.Path == "/closed/x") || r.Connection != 1 {
					t.Errorf("record %+v", r)
				}
			}
		})
	}
}

// TestGit clones and pushes with a credential that it never has; git's library for TLS is often another than curl's.
func TestGit(t *testing.T) {
	needs(t, "git")
	handler, dir := repository(t)
	p := newPKI(t)
	s, port, ca := p.program(handler.ServeHTTP)
	work := filepath.Join(t.TempDir(), "work")
	options := []string{"-c", fmt.Sprintf("http.curloptResolve=api.wild.example:%d:127.0.0.2", port), "-c", "http.sslCAInfo=" + ca}
	t.Setenv("GIT_SSL_CAINFO", ca) // the host's own would win over the option
	git(t, dir, append(options, "clone", "-q", fmt.Sprintf("https://api.wild.example:%d/repo.git", port), work)...)
	if err := os.WriteFile(filepath.Join(work, "big"), make([]byte, 3<<20), 0o600); err != nil { // beyond git's buffer: sent in chunks
		t.Fatal(err)
	}
	git(t, work, "add", "big")
	git(t, work, "commit", "-q", "-m", "second")
	git(t, work, append(options, "push", "-q", "origin", "HEAD:agent")...)
	if got, want := git(t, filepath.Join(dir, "repo.git"), "rev-parse", "agent"), git(t, work, "rev-parse", "HEAD"); got != want {
		t.Errorf("the host has %s, want %s", got, want)
	}
	out, err := gitCommand(dir, append(options, "ls-remote", fmt.Sprintf("https://api.wild.example:%d/other.git", port))...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "403") {
		t.Errorf("another repository: %v %s", err, out)
	}
	for _, r := range s.rec.requests() {
		if r.Outcome != Allowed && !strings.HasPrefix(r.Path, "/other.git/") {
			t.Errorf("record %+v", r)
		}
	}
}
