package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/runner/link"
)

// fixture writes files below a directory of the test.
func fixture(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const status = `Name:	sh
Umask:	0022
State:	S (sleeping)
Uid:	1000	1001	1002	1003
Gid:	2000	2001	2002	2003
Groups:	2000 10 
CapInh:	0000000000000000
CapPrm:	00000000000000c0
CapEff:	0000000000000001
CapBnd:	000001ffffffffff
CapAmb:	0000000000000002
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	1
`

func TestReadStatus(t *testing.T) {
	got, err := readStatus(filepath.Join(fixture(t, map[string]string{"status": status}), "status"))
	if err != nil {
		t.Fatal(err)
	}
	want := link.Process{
		UID: [4]int{1000, 1001, 1002, 1003}, GID: [4]int{2000, 2001, 2002, 2003}, Groups: []int{2000, 10},
		CapInh: "0000000000000000", CapPrm: "00000000000000c0", CapEff: "0000000000000001", CapBnd: "000001ffffffffff", CapAmb: "0000000000000002",
		NoNewPrivs: true, Seccomp: 2,
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("another process (-got +want):\n%s", diff)
	}
}

func TestReadStatusRefuses(t *testing.T) {
	for _, line := range []string{"Uid:\t1000\t1000\t1000", "Uid:\t1 2 3 4 5", "Gid:\ta b c d", "Groups:\tx", "Seccomp:\ttwo"} {
		key, _, _ := strings.Cut(line, ":")
		var altered []string
		for _, l := range strings.Split(status, "\n") {
			if strings.HasPrefix(l, key+":") {
				l = line
			}
			altered = append(altered, l)
		}
		path := filepath.Join(fixture(t, map[string]string{"status": strings.Join(altered, "\n")}), "status")
		if p, err := readStatus(path); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%q was read as %+v (%v)", line, p, err)
		}
	}
}

// TestMeasureOwn reads this process: what the files of the fixtures look like is no fiction.
func TestMeasureOwn(t *testing.T) {
	p, err := measureProcess("self")
	if err != nil {
		t.Fatal(err)
	}
	if p.Threads == 0 || p.UID[0] != os.Getuid() || p.GID[0] != os.Getgid() || len(p.CapBnd) != 16 {
		t.Errorf("this process is %+v", p)
	}
	all, err := mounts("/proc/self/mountinfo")
	if err != nil || len(all) == 0 {
		t.Errorf("%d mounts, %v", len(all), err)
	}
	names, err := interfaces()
	if err != nil || len(names) == 0 {
		t.Errorf("interfaces %q, %v", names, err)
	}
	ns, err := namespaces()
	if err != nil || !strings.HasPrefix(ns["net"], "net:[") {
		t.Errorf("namespaces %v, %v", ns, err)
	}
	if _, err := measureProcess("0"); err == nil {
		t.Error("process 0 was measured")
	}
}

func TestMounts(t *testing.T) {
	dir := fixture(t, map[string]string{
		"mountinfo": `22 21 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 master:3 - proc proc rw
23 21 0:22 / / ro,relatime - overlay overlay rw,lowerdir=/a:/b
24 21 8:1 /a\040b/c\134d /mnt/with\040space\011tab\012line ro - ext4 /dev/sda1 rw,errors=remount-ro
25 21 8:1 / /rooted rw,ro - ext4 - rw
26 21 8:1 / /not-escaped\09\8 relatime - ext4 - ro
`,
		"long": "1 0 0:1 / / rw - overlay overlay rw,lowerdir=" + strings.Repeat("x", 500<<10) + "\n",
		"bad":  "22 21 0:21 / /proc rw\n",
		"few":  "22 21 0:21 / - proc proc rw\n",
	})
	got, err := mounts(filepath.Join(dir, "mountinfo"))
	if err != nil {
		t.Fatal(err)
	}
	want := []link.Mount{
		{Target: "/proc", Type: "proc", Options: "rw,nosuid,nodev,noexec,relatime", Root: "/"},
		{Target: "/", Type: "overlay", ReadOnly: true, Options: "ro,relatime", Root: "/"},
		{Target: "/mnt/with space\ttab\nline", Type: "ext4", ReadOnly: true, Options: "ro", Root: `/a b/c\d`},
		{Target: "/rooted", Type: "ext4", Options: "rw,ro", Root: "/"}, // the kernel puts rw or ro first
		{Target: `/not-escaped\09\8`, Type: "ext4", Options: "relatime", Root: "/"},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("other mounts (-got +want):\n%s", diff)
	}
	if got, err := mounts(filepath.Join(dir, "long")); err != nil || len(got) != 1 {
		t.Errorf("a long line: %d mounts, %v", len(got), err)
	}
	for _, name := range []string{"bad", "few", "absent"} {
		if got, err := mounts(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s was read as %+v", name, got)
		}
	}
}

func TestUnescapeOctal(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain": "plain", `a\040b`: "a b", `\134040`: `\040`, `\`: `\`, `\04`: `\04`, `\999`: `\999`, `\777`: `\777`, `\000`: "\x00", `\377`: "\xff",
	} {
		if got := unescapeOctal(in); got != want {
			t.Errorf("unescapeOctal(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzUnescapeOctal: a name that the kernel escaped comes back, whatever it is.
func FuzzUnescapeOctal(f *testing.F) {
	f.Add("a b\\c\n\t#")
	f.Fuzz(func(t *testing.T, name string) {
		// mangle_path in the kernel's fs/seq_file.c, with the characters of show_mountinfo.
		escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`, "#", `\043`).Replace(name)
		if got := unescapeOctal(escaped); got != name {
			t.Errorf("unescapeOctal(%q) = %q, want %q", escaped, got, name)
		}
		_ = unescapeOctal(name) // whatever it is, it is no reason to panic
	})
}
