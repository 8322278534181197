package engine

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var updateSeccomp = flag.Bool("update-seccomp", false, "rewrite testdata/seccomp/stricter.golden")

// commented is the file as a reader sees it.
type commented struct {
	DefaultAction, DefaultErrnoRet, ArchMap json.RawMessage
	Denied                                  []struct {
		Comment string   `json:"comment"`
		Names   []string `json:"names"`
	} `json:"denied"`
	Syscalls []struct {
		Comment string `json:"comment"`
		seccompRule
	} `json:"syscalls"`
}

func readCommented(t *testing.T) commented {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(strictSeccomp))
	dec.DisallowUnknownFields()
	var c commented
	if err := dec.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

func readProfile(t *testing.T, from []byte) seccompProfile {
	t.Helper()
	var p seccompProfile
	if err := json.Unmarshal(from, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestStrictSeccompGivesAReasonForEveryRule(t *testing.T) {
	c := readCommented(t)
	for _, r := range c.Syscalls {
		if len(r.Comment) < 10 {
			t.Errorf("the rule for %q has no reason: %q", r.Names, r.Comment)
		}
	}
	for _, d := range c.Denied {
		if len(d.Comment) < 10 {
			t.Errorf("the denial of %q has no reason: %q", d.Names, d.Comment)
		}
	}
}

// The list and ours, kept apart from the file so that a name cannot be dropped from both at once.
var mustDeny = strings.Fields(`
	io_uring_setup io_uring_enter io_uring_register keyctl add_key request_key userfaultfd bpf perf_event_open
	mount umount umount2 fsopen fsmount fsconfig fspick move_mount open_tree open_tree_attr mount_setattr pivot_root
	statmount listmount chroot setns unshare open_by_handle_at name_to_handle_at kexec_load kexec_file_load
	init_module finit_module delete_module quotactl quotactl_fd acct swapon swapoff reboot settimeofday stime
	clock_settime clock_settime64 syslog vmsplice modify_ldt iopl ioperm socketcall pidfd_getfd kcmp
	fanotify_init memfd_secret`)

func TestStrictSeccompAllowsNothingOfTheDeniedList(t *testing.T) {
	denied := map[string]bool{}
	for _, d := range readCommented(t).Denied {
		for _, name := range d.Names {
			if denied[name] {
				t.Errorf("%s is denied twice", name)
			}
			denied[name] = true
		}
	}
	for _, name := range mustDeny {
		if !denied[name] {
			t.Errorf("%s is missing among the denied", name)
		}
	}
	for _, r := range readProfile(t, strictSeccomp).Syscalls {
		for _, name := range r.Names {
			if r.Action == allow && (denied[name] || name == "clone3") {
				t.Errorf("%s is denied and allowed", name)
			}
		}
	}
}

// TestStrictSeccompIsUnambiguous: libseccomp lets an unconditional rule swallow conditional ones, and
// runc takes two conditions on one argument for alternatives. Neither may be relied on by accident.
func TestStrictSeccompIsUnambiguous(t *testing.T) {
	p := readProfile(t, strictSeccomp)
	if p.DefaultAction != deny || p.DefaultErrnoRet != 1 {
		t.Errorf("the default is %s %d, want %s with EPERM", p.DefaultAction, p.DefaultErrnoRet, deny)
	}
	unconditional, conditional, rules := map[string]int{}, map[string]bool{}, map[string]bool{}
	name := regexp.MustCompile(`^[_a-z][a-z0-9_]*$`)
	for _, r := range p.Syscalls {
		checkRule(t, r)
		for _, n := range r.Names {
			if !name.MatchString(n) {
				t.Errorf("%q is no system call", n)
			}
			if len(r.Args) == 0 {
				unconditional[n]++
				continue
			}
			conditional[n] = true
			if key := n + " " + fmt.Sprint(r.Args); rules[key] {
				t.Errorf("two rules for %s", key)
			} else {
				rules[key] = true
			}
		}
	}
	for n, times := range unconditional {
		if times > 1 {
			t.Errorf("%s has %d rules without condition", n, times)
		}
		if conditional[n] {
			t.Errorf("%s has rules with and without condition", n)
		}
	}
}

func checkRule(t *testing.T, r seccompRule) {
	t.Helper()
	switch {
	case r.Action == allow && r.ErrnoRet == nil:
	case r.Action == deny && r.ErrnoRet != nil && *r.ErrnoRet != 1:
		// runc 1.0 refuses a rule that does what the default does, so a denial has another errno.
	default:
		t.Errorf("the rule for %q: action %s with this errno", r.Names, r.Action)
	}
	seen := map[uint]bool{}
	for _, a := range r.Args {
		if seen[a.Index] {
			t.Errorf("the rule for %q has two conditions on argument %d", r.Names, a.Index)
		}
		seen[a.Index] = true
	}
	for _, f := range []*seccompFilter{r.Includes, r.Excludes} {
		if f != nil && len(f.Caps) > 0 {
			t.Errorf("the rule for %q depends on capabilities", r.Names)
		}
	}
}

// TestStrictSeccompIoctl proves that the rules for ioctl match all requests but three, whatever is in the upper half of the register.
func TestStrictSeccompIoctl(t *testing.T) {
	var conditions []seccompArg
	for _, r := range readProfile(t, strictSeccomp).Syscalls {
		if !slices.Contains(r.Names, "ioctl") {
			continue
		}
		if len(r.Args) != 1 || r.Args[0].Index != 1 || r.Args[0].Op != maskedEqual || r.Action != allow {
			t.Fatalf("a rule for ioctl that is no mask on the request: %+v", r)
		}
		conditions = append(conditions, r.Args[0])
	}
	got := unmatched(conditions, 1<<63, 0, 0)
	const tiocsti, tioclinux, tiocsetd = 0x5412, 0x541c, 0x5423
	want := []string{
		fmt.Sprintf("%#x of the bits %#x", tiocsti, uint32(1<<32-1)),
		fmt.Sprintf("%#x of the bits %#x", tioclinux, uint32(1<<32-1)),
		fmt.Sprintf("%#x of the bits %#x", tiocsetd, uint32(1<<32-1)),
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests that no rule allows (-want +got):\n%s", diff)
	}
}

// unmatched lists the values that none of the conditions match, as sets: each has the bits `fixed`
// of `value`, and any others. It decides bit after bit, and stops as soon as all of a set or nothing of it can match.
func unmatched(conditions []seccompArg, bit, fixed, value uint64) []string {
	var open []seccompArg
	for _, c := range conditions {
		if value&c.Value&fixed != c.ValueTwo&fixed {
			continue
		}
		if c.Value&^fixed == 0 {
			return nil
		}
		open = append(open, c)
	}
	if len(open) == 0 {
		return []string{fmt.Sprintf("%#x of the bits %#x", value, fixed)}
	}
	relevant := false
	for _, c := range open {
		relevant = relevant || c.Value&bit != 0
	}
	if !relevant {
		return unmatched(open, bit>>1, fixed, value)
	}
	return append(unmatched(open, bit>>1, fixed|bit, value), unmatched(open, bit>>1, fixed|bit, value|bit)...)
}

func TestStrictSeccompForTheEngine(t *testing.T) {
	var got seccompProfile
	dec := json.NewDecoder(strings.NewReader(StrictSeccomp()))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readProfile(t, strictSeccomp), got); diff != "" {
		t.Errorf("what the engine gets differs from the file (-file +engine):\n%s", diff)
	}
	if strings.Contains(StrictSeccomp(), "comment") || strings.Contains(StrictSeccomp(), "\n") {
		t.Error("what the engine gets is not compact")
	}
	if got := SeccompDigest(StrictSeccomp()); !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(got) {
		t.Errorf("SeccompDigest(StrictSeccomp()) = %q", got)
	}
}

// TestStrictSeccompAgainstTheDefault compares with the current default of Docker, a copy of
// default.json of github.com/moby/profiles/seccomp v0.2.4 (Apache-2.0). The profile may allow nothing
// that the default denies, and what it denies beyond that is listed in the golden file, so that no
// rule gets wider unnoticed.
func TestStrictSeccompAgainstTheDefault(t *testing.T) {
	upstream, err := os.ReadFile("testdata/seccomp/moby-default.json")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, arch := range []string{"amd64", "arm64"} {
		wide, narrow := rulesFor(readProfile(t, upstream), arch), rulesFor(readProfile(t, strictSeccomp), arch)
		fmt.Fprintf(&got, "# %s, for %s (default: %s)\n", arch,
			strings.Join(architectures(t, strictSeccomp, arch), " "), strings.Join(architectures(t, upstream, arch), " "))
		for _, name := range sortedKeys(narrow) {
			if point, wider := allowsMore(narrow[name], wide[name]); wider {
				t.Errorf("%s: %s%v is allowed, and Docker's default denies it", arch, name, point)
			}
		}
		for _, name := range sortedKeys(wide) {
			got.WriteString(stricter(name, wide[name], narrow[name]))
		}
	}
	const golden = "testdata/seccomp/stricter.golden"
	if *updateSeccomp {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("stricter than Docker's default (-want +got; -update-seccomp rewrites it):\n%s", diff)
	}
}
