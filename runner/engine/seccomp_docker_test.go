//go:build docker

package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests use the docker command, and not this package's client: they are about the profile, and
// the command hands it to the engine in the same way.

// deployed is how the guest's container is started; everything else that the runner adds (limits,
// labels) has nothing to do with seccomp.
var deployed = []string{
	"--cap-drop=ALL", "--cap-add=NET_ADMIN", "--cap-add=SETUID", "--cap-add=SETGID", "--cap-add=SETPCAP",
	"--security-opt=no-new-privileges", "--user=1000:1000",
}

// mighty has the capabilities that make the kernel itself permit the attempts. Under it, the profile
// alone can be what denies them. (ALL would fail where the engine itself lacks one.)
var mighty = []string{
	"--cap-add=SYS_ADMIN", "--cap-add=SYS_MODULE", "--cap-add=SYS_BOOT", "--cap-add=SYS_CHROOT", "--cap-add=SYS_PTRACE",
	"--cap-add=SYS_PACCT", "--cap-add=SYS_RAWIO", "--cap-add=SYS_TIME", "--cap-add=SYS_TTY_CONFIG", "--cap-add=SYS_NICE",
	"--cap-add=SYSLOG", "--cap-add=NET_ADMIN", "--cap-add=NET_RAW", "--cap-add=DAC_READ_SEARCH", "--cap-add=MKNOD",
}

func TestSeccompDenies(t *testing.T) {
	peer := t.TempDir()
	buildInto(t, peer, "./internal/sysprobe", runtime.GOARCH)
	image := emptyImage(t)
	strict := attempts(t, peer, image, append([]string{strictOption(t)}, deployed...))
	strictMighty := attempts(t, peer, image, append([]string{strictOption(t)}, mighty...))
	control := attempts(t, peer, image, append([]string{"--security-opt=seccomp=unconfined"}, mighty...))
	if len(control) < 100 {
		t.Fatalf("only %d attempts", len(control))
	}
	for name, c := range control {
		t.Run(name, func(t *testing.T) {
			for _, got := range []attempted{strict[name], strictMighty[name]} {
				if !slices.Contains(c.Strict, got.Errno) {
					t.Errorf("under the profile: %s %s, want one of %v", got.Errno, got.Detail, c.Strict)
				}
			}
			checkControl(t, c)
		})
	}
}

// checkControl tells whether the attempt proved anything: the same call, by a process with the same
// capabilities but without the profile, has to have another answer.
func checkControl(t *testing.T, c attempted) {
	t.Helper()
	works := slices.ContainsFunc(c.Strict, func(e string) bool { return slices.Contains([]string{"ok", "EFAULT", "EBADF"}, e) })
	lacks := slices.Contains([]string{"ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "SIGSEGV"}, c.Errno) // SIGSEGV: no 32-bit entry
	same := slices.Contains(c.Strict, c.Errno)
	switch {
	case works && !same:
		t.Errorf("without the profile: %s %s, so the attempt itself is wrong", c.Errno, c.Detail)
	case !works && c.Strict[0] == "SIGSYS" && !same:
	case !works && lacks:
		t.Skipf("no control: the kernel of this engine answers %s by itself", c.Errno)
	case !works && same:
		t.Errorf("without the profile: %s as well, so the attempt proves nothing", c.Errno)
	}
}

// attempted is a line of sysprobe's output; see there.
type attempted struct {
	Name   string
	Strict []string
	Errno  string
	Detail string
}

func attempts(t *testing.T, peer, image string, options []string) map[string]attempted {
	t.Helper()
	all := map[string]attempted{}
	dec := json.NewDecoder(bytes.NewReader(inContainer(t, peer, image, options, "/peer/sysprobe", "all")))
	for dec.More() {
		var a attempted
		if err := dec.Decode(&a); err != nil {
			t.Fatal(err)
		}
		all[a.Name] = a
	}
	return all
}

func TestSeccompAttemptsEverythingDenied(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("several of the denied calls exist only on x86")
	}
	dir := t.TempDir()
	buildInto(t, dir, "./internal/sysprobe", runtime.GOARCH)
	out := output(t, time.Minute, filepath.Join(dir, "sysprobe"), "list")
	attempted := map[string]bool{"unshare": true} // as "unshare NEWUSER" and so on
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		attempted[s.Text()] = true
	}
	for _, d := range readCommented(t).Denied {
		for _, name := range d.Names {
			if !attempted[name] {
				t.Errorf("sysprobe does not attempt %s", name)
			}
		}
	}
}

func TestSeccompKeepsToolsWorking(t *testing.T) {
	peer := peerDir(t)
	image := peersImage(t)
	chromium := "chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking " +
		"--disable-component-update --disable-sync --no-first-run --user-data-dir=/tmp/chromium "
	page := `'data:text/html,<p id=x></p><script>x.textContent="chromium works: "+6*7</script>'`
	for _, tt := range []struct{ name, script, want string }{
		{"go", "/peer/gopeer", "gopeer works"},
		{"node", "node /peer/peer.mjs", "node works: 42 child seen hello true 127.0.0.1"},
		{"java", "java -Xmx512m /peer/Peer.java", "java works: 2080 ok"},
		{"python and ss", "python3 /peer/peer.py", "python works"},
		{"chromium", chromium + "--dump-dom " + page, "chromium works: 42</p>"},
		{"chromium screenshot", chromium + "--screenshot=/tmp/page.png " + page + " && head -c 4 /tmp/page.png", "\x89PNG"},
		{"gdb breakpoint", "gdb -batch -ex 'set breakpoint pending on' -ex 'break exit' -ex run -ex bt -ex continue /bin/true", "exited normally"},
		{"gdb attach", "sleep 60 & exec gdb -batch -p $! -ex 'info registers' -ex detach", "detached"},
		{"strace", "strace -f -o /tmp/trace sh -c 'cat /dev/null & wait' && cat /tmp/trace", `execve("/usr/bin/cat"`},
		{"fifo", "mkfifo /tmp/fifo && test -p /tmp/fifo && echo fifo works", "fifo works"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			options := append([]string{strictOption(t)}, deployed...)
			if got := string(inContainer(t, peer, image, options, "sh", "-c", tt.script)); !strings.Contains(got, tt.want) {
				t.Errorf("%s: printed %q, want %q in it", tt.script, got, tt.want)
			}
		})
	}
	if runtime.GOARCH == "amd64" {
		t.Run("32-bit go", func(t *testing.T) {
			if err := exec.Command(filepath.Join(peer, "gopeer386")).Run(); errors.Is(err, syscall.ENOEXEC) {
				t.Skipf("SKIPPED: this kernel runs no 32-bit programs: %v", err)
			}
			options := append([]string{strictOption(t)}, deployed...)
			if got := string(inContainer(t, peer, image, options, "/peer/gopeer386")); got != "gopeer works\n" {
				t.Errorf("printed %q", got)
			}
		})
	}
}

// TestSeccompLetsTheGuestSetUp does with shell tools what the guest does before the agent exists:
// address, route and redirect over netlink, then the drop of everything.
func TestSeccompLetsTheGuestSetUp(t *testing.T) {
	const script = `set -e
		ip address add 198.51.100.1/32 dev lo
		ip route add local 0.0.0.0/0 dev lo
		nft 'table ip capture { chain out { type nat hook output priority -100; ip daddr != 127.0.0.0/8 tcp dport 1-65535 redirect to :1080; }; }'
		nft list ruleset | grep -q 'redirect to :1080'
		exec setpriv --reuid=1000 --regid=1000 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs \
			sh -c 'id; grep -E "^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status; nft flush ruleset || echo flush refused'`
	options := append([]string{strictOption(t)}, deployed...)
	options = append(options, "--user=0:0")
	got := string(inContainer(t, t.TempDir(), peersImage(t), options, "sh", "-c", script))
	for _, want := range []string{
		"uid=1000 gid=1000 groups=1000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n",
		"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "flush refused\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("printed %q, want %q in it", got, want)
		}
	}
}

func strictOption(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "seccomp.json")
	if err := os.WriteFile(file, []byte(StrictSeccomp()), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--security-opt=seccomp=" + file
}

// inContainer runs a command as the sandbox would and returns its standard output; a later option wins over an earlier one.
func inContainer(t *testing.T, peer, image string, options []string, command ...string) []byte {
	t.Helper()
	args := []string{
		"run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp:rw,nosuid,mode=1777,size=512m", "--memory=2g", "--pids-limit=512",
		"--env=HOME=/tmp", "--mount=type=bind,source=" + peer + ",target=/peer,readonly",
	}
	return output(t, time.Minute, "docker", slices.Concat(args, options, []string{image}, command)...)
}

// buildInto builds a static program for a container; its name is the last part of the package's.
func buildInto(t *testing.T, dir, pkg, arch string) {
	t.Helper()
	name := filepath.Join(dir, filepath.Base(pkg))
	if arch != runtime.GOARCH {
		name += arch
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", name, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
}

// peerDir holds the programs and scripts that the tools are tried with.
func peerDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	buildInto(t, dir, "./testdata/peers/gopeer", runtime.GOARCH)
	if runtime.GOARCH == "amd64" {
		buildInto(t, dir, "./testdata/peers/gopeer", "386")
	}
	for _, name := range []string{"Peer.java", "peer.mjs", "peer.py"} {
		src, err := os.ReadFile(filepath.Join("testdata", "peers", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), src, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// emptyImage has no files; a static program that is mounted runs in it.
func emptyImage(t *testing.T) string {
	t.Helper()
	const name = "agent-sandbox-test-empty"
	if exec.CommandContext(t.Context(), "docker", "image", "inspect", name).Run() != nil {
		cmd := exec.CommandContext(t.Context(), "docker", "import", "-", name)
		cmd.Stdin = bytes.NewReader(make([]byte, 1024)) // an archive of nothing ends with two blocks of zeros
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("docker import: %v\n%s", err, out)
		}
	}
	return name
}

// peersImage is Debian with the tools that have to go on working. Making it takes a minute and a
// gigabyte, so the engine keeps it under the digest of its recipe, and the user's cache directory
// keeps the archive for other engines.
func peersImage(t *testing.T) string {
	t.Helper()
	recipe := []string{
		"--variant=apt", "--format=tar",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--include=chromium,gdb,iproute2,nftables,nodejs,openjdk-21-jdk-headless,python3,strace",
		"trixie",
	}
	sum := sha256.Sum256([]byte(strings.Join(recipe, "\n")))
	digest := hex.EncodeToString(sum[:6])
	name := "agent-sandbox-test-peers:" + digest
	if exec.CommandContext(t.Context(), "docker", "image", "inspect", name).Run() != nil {
		output(t, 5*time.Minute, "docker", "import", peersArchive(t, recipe, digest), name)
	}
	return name
}

func peersArchive(t *testing.T, recipe []string, digest string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "agent-sandbox", "test")
	archive := filepath.Join(dir, "peers-"+digest+".tar")
	if _, err := os.Stat(archive); err == nil {
		return archive
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// Under another name until it is whole: a broken archive must not be what later runs find.
	part := archive + ".part"
	output(t, 15*time.Minute, "mmdebstrap", append(recipe, part)...)
	if err := os.Rename(part, archive); err != nil {
		t.Fatal(err)
	}
	return archive
}

// output runs a command on the host and returns what it writes to its standard output.
func output(t *testing.T, limit time.Duration, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return out
}
