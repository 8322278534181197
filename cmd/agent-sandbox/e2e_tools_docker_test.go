//go:build docker

package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// tool is a program that reaches a peer, as its users call it: with no proxy and no option for the sandbox.
type tool struct {
	name   string
	peer   string // the variable that holds its port
	host   string
	port   int // as the tool dials it; 0 for 443
	tcp    bool
	script string   // for bash
	cached []string // a script that fetches, and one that has nothing but what the first has left in the cache
	want   string   // a line of its output
	files  map[string]string
}

// networkTools are the tools and what they are to fetch.
func networkTools() []tool {
	const small = "https://files.peer.test/small.txt"
	const hello = "hello from a peer"
	web := func(name, script string) tool {
		return tool{name: name, peer: "HTTPS", host: "files.peer.test", script: strings.ReplaceAll(script, "URL", small), want: hello}
	}
	return []tool{
		web("curl", `curl -sS URL`),
		web("curl over HTTP/1.1", `curl -sS --http1.1 URL`),
		web("wget", `wget -nv -O - URL`),
		web("Python's urllib", `python3 -c 'import urllib.request as u; print(u.urlopen("URL").read().decode())'`),
		web("requests", `python3 -c 'import requests; print(requests.get("URL").text)'`),
		web("Node's fetch", `node -e 'fetch("URL").then(r => r.text()).then(console.log)'`),
		web("Node's https", `node -e 'require("https").get("URL", r => r.pipe(process.stdout))'`),
		web("undici", `NODE_PATH=/usr/share/nodejs node -e 'require("undici").request("URL").then(r => r.body.text()).then(console.log)'`),
		{
			name: "curl over plain HTTP", peer: "HTTP", host: "files.peer.test", port: 80, script: `curl -sS http://files.peer.test/small.txt`, want: hello,
		},
		{
			name: "Java's HttpClient", peer: "HTTPS", host: "files.peer.test", want: hello, files: map[string]string{"Get.java": javaGet},
			script: `java Get.java ` + small,
		},
		{
			name: "git", peer: "HTTPS", host: "git.peer.test", want: "pushed", script: `cd /tmp && git clone -q https://git.peer.test/git/shop.git && cd shop &&
				git checkout -q -b work && echo more >>README && git commit -qam more && git push -q origin work:$AGENT_SANDBOX &&
				git fetch -q && git ls-remote origin | grep -q "refs/heads/$AGENT_SANDBOX" && echo pushed`,
		},
		{
			name: "npm", peer: "NPM", host: "npm.peer.test", want: "hello from peer-greet", script: `cd /tmp && npm install --silent --registry https://npm.peer.test/ peer-greet &&
				node -e 'console.log(require("peer-greet"))'`,
			cached: []string{
				`cd /tmp && npm install --silent --registry https://npm.peer.test/ peer-greet`,
				`cd /tmp && npm install --silent --offline --registry https://npm.peer.test/ peer-greet`,
			},
		},
		{
			name: "pip", peer: "HTTPS", host: "pypi.peer.test", want: "hello from peerlib", script: `pip install --quiet --disable-pip-version-check --retries 0 --no-cache-dir --target /tmp/lib --index-url https://pypi.peer.test/simple peerlib &&
				PYTHONPATH=/tmp/lib python3 -c 'import peerlib; print(peerlib.GREETING)'`,
		},
		{
			name: "go", peer: "HTTPS", host: "goproxy.peer.test", want: "hello from greet; " + hello, files: map[string]string{"go.mod": goModule, "main.go": goProgram},
			script: `GOPROXY=https://goproxy.peer.test/goproxy GOSUMDB=off GOFLAGS=-mod=mod GOTOOLCHAIN=local go run .`,
			cached: []string{
				`GOPROXY=https://goproxy.peer.test/goproxy GOSUMDB=off GOFLAGS=-mod=mod GOTOOLCHAIN=local go list -deps .`,
				`GOPROXY=off GOSUMDB=off GOFLAGS=-mod=mod GOTOOLCHAIN=local go list -deps .`,
			},
		},
		{
			name: "apt", peer: "HTTPS", host: "deb.peer.test", want: "peerpkg_1.0_all.deb", files: map[string]string{"apt.conf": aptConfig, "sources.list": aptSources},
			script: `mkdir -p /tmp/apt/state/lists/partial /tmp/apt/cache/archives/partial && cd /tmp && export APT_CONFIG=/workspace/apt.conf &&
				{ [ -z "$SSL_CERT_FILE" ] || echo "Acquire::https::CaInfo \"$SSL_CERT_FILE\";" >/tmp/apt/ca.conf; } &&
				apt-get -q -c /tmp/apt/ca.conf update && apt-get -q -c /tmp/apt/ca.conf download peerpkg && ls`,
		},
		{
			name: "psql", peer: "PG", host: "postgres", port: 5432, tcp: true, want: "42", script: `psql -h postgres -U postgres -Atc 'select 6*7'`,
		},
		{
			name: "gRPC", peer: "GRPC", host: "grpc.peer.test", want: "all four", files: map[string]string{"call.py": grpcCalls}, script: `python3 call.py`,
		},
		{
			name: "server-sent events", peer: "STREAM", host: "stream.peer.test", want: "data: second", script: eventsScript(""),
		},
		{
			name: "server-sent events over HTTP/1.1", peer: "STREAM", host: "stream.peer.test", want: "data: second", script: eventsScript("--http1.1"),
		},
		{
			name: "WebSocket of Node's ws", peer: "STREAM", host: "stream.peer.test", want: "echo of ws", script: `NODE_PATH=/usr/share/nodejs node -e '
				const WebSocket = require("ws"); const s = new WebSocket("wss://stream.peer.test/");
				s.on("open", () => s.send("echo of ws")); s.on("message", d => { console.log(String(d)); s.close() })'`,
		},
		{
			name: "WebSocket of Python's websockets", peer: "STREAM", host: "stream.peer.test", want: "echo of python", script: `python3 -c '
from websockets.sync.client import connect
with connect("wss://stream.peer.test/") as s:
    s.send("echo of python"); print(s.recv())'`,
		},
	}
}

// eventsScript waits for the first event before it asks for the second: what holds events back never gets it.
func eventsScript(option string) string {
	curl := "curl -sSN " + option + " https://stream.peer.test"
	return curl + `/events | while read -r line; do echo "$line"; [ "$line" != "data: first" ] || ` + curl + `/release; done`
}

const (
	javaGet = `import java.net.*; import java.net.http.*;
public class Get {
	public static void main(String[] a) throws Exception {
		var request = HttpRequest.newBuilder(URI.create(a[0])).build();
		System.out.print(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
	}
}
`
	goModule  = "module example.test/x\n\ngo 1.21\n\nrequire lib.peer.test/greet v1.0.0\n"
	goProgram = `package main

import (
	"fmt"
	"io"
	"net/http"

	"lib.peer.test/greet"
)

func main() {
	r, err := http.Get("https://goproxy.peer.test/small.txt")
	if err != nil {
		panic(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	fmt.Print(greet.Text, "; ", string(text))
	if err != nil {
		panic(err)
	}
}
`
	aptConfig = `Dir::State "/tmp/apt/state"; Dir::Cache "/tmp/apt/cache"; Dir::Etc::sourcelist "/workspace/sources.list"; Dir::Etc::sourceparts "-";
APT::Sandbox::User ""; Debug::NoLocking "1"; Acquire::Retries "0"; APT::Update::Error-Mode "any";
`
	aptSources = "deb [trusted=yes] https://deb.peer.test/debian ./\n"
	grpcCalls  = `import os, grpc
roots = open(os.environ["SSL_CERT_FILE"], "rb").read()
channel = grpc.secure_channel("grpc.peer.test:443", grpc.ssl_channel_credentials(roots))
path = "/peer.Greeter/"
assert channel.unary_unary(path + "Unary")(b"you", timeout=10) == b"hello you"
assert list(channel.unary_stream(path + "Down")(b"n", timeout=10)) == [b"n0", b"n1", b"n2"]
assert channel.stream_unary(path + "Up")(iter([b"a", b"b"]), timeout=10) == b"a+b"
assert list(channel.stream_stream(path + "Both")(iter([b"x", b"y"]), timeout=10)) == [b"echo x", b"echo y"]
try:
    channel.unary_unary(path + "Missing")(b"", timeout=10)
    raise SystemExit("no error came")
except grpc.RpcError as e:
    assert e.code() == grpc.StatusCode.NOT_FOUND and e.details() == "nothing there", e
print("all four")
`
)

// trustByHand is how a company's own image would make its tools trust its authority.
func trustByHand() string {
	var vars []string
	for _, name := range []string{"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO"} {
		vars = append(vars, fmt.Sprintf("%q", name+"=/workspace/peers.crt"))
	}
	vars = append(vars,
		`"JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=/workspace/peers.truststore -Djavax.net.ssl.trustStorePassword=changeit"`, `"WGETRC=/workspace/wgetrc"`)
	return "env: [" + strings.Join(vars, ", ") + "]\n"
}

// entry is the tool's line in network.allow.
func (w tool) entry(p *peers, rules string) string {
	port := w.port
	if port == 0 {
		port = 443
	}
	more := rules
	if w.tcp {
		more = ", tcp: true"
	}
	return fmt.Sprintf("network: {allow: [{host: %s, port: %d, to: \"127.0.0.1:%s\"%s}]}\n", w.host, port, p.ports[w.peer], more)
}

// userOf is a user with the tool's files in the project.
func (w tool) userOf(t *testing.T, p *peers, policy string) *user {
	u := newUser(t)
	u.policy("image: " + peersImage() + "\n" + policy)
	for name, content := range w.files {
		u.write(name, content, 0o644)
	}
	u.write("peers.crt", string(p.ca), 0o644)
	u.write("peers.truststore", p.keystore, 0o644)
	u.write("wgetrc", "ca_certificate = /workspace/peers.crt\n", 0o644)
	return u
}

// use runs the tool's script as people would, under a policy.
func (w tool) use(u *user, p *peers) result {
	u.t.Helper()
	return u.finish(u.command("run", "--image", peersImage(), "--ca-file", p.caFile, "--", "bash", "-o", "pipefail", "-c", w.script))
}

// TestTools: every tool works when its host is allowed, whether the connection is passed on as it is or looked into, and is refused
// and recorded when not.
func TestTools(t *testing.T) {
	p := startPeers(t)
	for _, w := range networkTools() {
		t.Run(strings.ReplaceAll(w.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			t.Run("spliced", func(t *testing.T) { w.works(t, p, w.entry(p, "")+trustByHand()) })
			if !w.tcp {
				t.Run("inspected", func(t *testing.T) { w.works(t, p, w.entry(p, `, rules: ["* /**"]`)) })
			}
			t.Run("refused", func(t *testing.T) { w.isRefused(t, p) })
			if w.cached != nil {
				t.Run("cached", func(t *testing.T) { w.isCached(t, p) })
			}
		})
	}
}

func (w tool) works(t *testing.T, p *peers, policy string) {
	u := w.userOf(t, p, policy)
	r := w.use(u, p)
	u.wantCode(r, 0)
	if !strings.Contains(r.stdout, w.want) {
		t.Errorf("stdout %q has no %q\nstderr: %s", r.stdout, w.want, r.stderr)
	}
	s := u.summary()
	if len(s.Hosts) != 1 || s.Hosts[0].Host != w.host {
		t.Errorf("the record has the hosts %+v, want %s alone", s.Hosts, w.host)
	}
}

func (w tool) isRefused(t *testing.T, p *peers) {
	u := w.userOf(t, p, trustByHand())
	r := w.use(u, p)
	if r.code == 0 || strings.Contains(r.stdout, w.want) {
		t.Errorf("exit status %d, stdout %q", r.code, r.stdout)
	}
	s := u.summary()
	if !strings.Contains(fmt.Sprintf("%+v", s.Refused), w.host) {
		t.Errorf("the record has no refusal of %s: %+v", w.host, s.Refused)
	}
}

// isCached checks that what one run fetched the next one has, without a network.
func (w tool) isCached(t *testing.T, p *peers) {
	const caches = "caches: [npm, go]\n"
	u := w.userOf(t, p, w.entry(p, "")+trustByHand()+caches)
	defer u.prune()
	w.script = w.cached[0]
	u.wantCode(w.use(u, p), 0)
	w.script = w.cached[1]
	u.policy("image: " + peersImage() + "\n" + caches)
	u.wantCode(w.use(u, p), 0)
	if s := u.summary(); len(s.Hosts)+len(s.Refused) > 0 {
		t.Errorf("it was looked for again: %+v %+v", s.Hosts, s.Refused)
	}
	u.policy("image: " + peersImage() + "\n") // the control
	if r := w.use(u, p); r.code == 0 {
		t.Errorf("it works without the cache as well: %s", r.stdout)
	}
}

// TestLargeFiles: what is large arrives as it was sent, either way.
func TestLargeFiles(t *testing.T) {
	p := startPeers(t)
	want := strings.Fields(defaultEngine(t, "exec", p.container, "sha256sum", "/srv/www/large.bin"))[0]
	w := tool{peer: "HTTPS", host: "files.peer.test", script: `set -e
		curl -sS https://files.peer.test/large.bin | sha256sum
		curl -sS https://files.peer.test/large.bin | curl -sS -T - -o /dev/null -w '%{http_code}' https://files.peer.test/upload/$UPLOAD`}
	for mode, policy := range map[string]string{
		"spliced": w.entry(p, "") + trustByHand(), "inspected": w.entry(p, `, rules: ["* /**"]`),
	} {
		t.Run(mode, func(t *testing.T) {
			u := w.userOf(t, p, policy)
			u.limit = loadTimeout // 6 GiB take long on a machine that has much else to do
			w := w
			w.script = strings.ReplaceAll(w.script, "$UPLOAD", mode)
			r := w.use(u, p)
			u.wantCode(r, 0)
			if !strings.Contains(r.stdout, want) || !strings.HasSuffix(r.stdout, "201") {
				t.Errorf("stdout %q, want the hash %s and 201", r.stdout, want)
			}
			if got := strings.Fields(defaultEngine(t, "exec", p.container, "sha256sum", filepath.Join("/srv/www/upload", mode)))[0]; got != want {
				t.Errorf("%s arrived, want %s", got, want)
			}
		})
	}
}
