//go:build unix

package broker

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// postgres starts a server of its own for the test, on a Unix socket in a temporary directory, and gives its URL. Without a server's programs the test is skipped, but
// never in CI on Linux.
func postgres(t testing.TB) string {
	t.Helper()
	bin := postgresPrograms()
	if bin == "" {
		if os.Getenv("CI") == "true" && runtime.GOOS == "linux" {
			t.Fatal("PostgreSQL is not installed: initdb is neither in PATH nor in /usr/lib/postgresql/*/bin")
		}
		t.Skip("PostgreSQL is not installed (apt-get install postgresql)")
	}
	dir, err := os.MkdirTemp("", "pg") // short: the path of a socket has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	as := serverUser(t, dir)
	run := func(name string, args ...string) error {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr, cmd.Env = dir, as, []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	data, log := filepath.Join(dir, "data"), filepath.Join(dir, "log")
	if err := run("initdb", "--no-sync", "--auth=trust", "--username=broker", "--encoding=UTF8", "--pgdata="+data); err != nil {
		t.Fatal(err)
	}
	// No TCP, and -l: a server that kept our pipes would keep this command waiting.
	if err := run("pg_ctl", "start", "--wait", "--timeout=120", "--pgdata="+data, "--log="+log, "--options=-k "+dir+" -c listen_addresses='' -c max_connections=60"); err != nil {
		content, _ := os.ReadFile(log)
		t.Fatalf("%v\n%s", err, content)
	}
	t.Cleanup(func() {
		if err := run("pg_ctl", "stop", "--wait", "--mode=immediate", "--pgdata="+data); err != nil {
			t.Error(err)
		}
	})
	return "postgres://broker@/postgres?host=" + url.QueryEscape(dir)
}

// postgresPrograms is the directory of the newest version.
func postgresPrograms() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is good
	if len(found) > 0 {
		return filepath.Dir(slices.Max(found))
	}
	if name, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(name)
	}
	return ""
}

// serverUser is who runs the server, which refuses to be root. It gets the directory.
func serverUser(t testing.TB, dir string) *syscall.SysProcAttr {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}
