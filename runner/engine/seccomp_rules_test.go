package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

const (
	allow       = "SCMP_ACT_ALLOW"
	deny        = "SCMP_ACT_ERRNO"
	maskedEqual = "SCMP_CMP_MASKED_EQ"
)

// rulesFor are the rules that hold on an architecture and a current kernel, for a container that has none of
// the capabilities that profiles ask for, by the name of the call.
func rulesFor(p seccompProfile, arch string) map[string][]seccompRule {
	rules := map[string][]seccompRule{}
	for _, r := range p.Syscalls {
		if f := r.Includes; f != nil && (len(f.Caps) > 0 || len(f.Arches) > 0 && !slices.Contains(f.Arches, arch)) {
			continue
		}
		if f := r.Excludes; f != nil && slices.Contains(f.Arches, arch) {
			continue
		}
		for _, name := range r.Names {
			rules[name] = append(rules[name], r)
		}
	}
	return rules
}

func architectures(t *testing.T, profile []byte, arch string) []string {
	t.Helper()
	native := map[string]string{"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[arch]
	for _, a := range readProfile(t, profile).ArchMap {
		if a.Architecture == native {
			return append([]string{a.Architecture}, a.SubArchitectures...)
		}
	}
	t.Fatalf("%s is not in the profile", arch)
	return nil
}

func sortedKeys(rules map[string][]seccompRule) []string { return slices.Sorted(maps.Keys(rules)) }

// permits tells what the rules of one call say to these arguments.
func permits(rules []seccompRule, args [3]uint64) bool {
	for _, r := range rules {
		if r.Action == allow && !slices.ContainsFunc(r.Args, func(a seccompArg) bool { return !matches(a, args[a.Index]) }) {
			return true
		}
	}
	return false
}

func matches(a seccompArg, v uint64) bool {
	switch a.Op {
	case "SCMP_CMP_EQ":
		return v == a.Value
	case "SCMP_CMP_NE":
		return v != a.Value
	case "SCMP_CMP_LT":
		return v < a.Value
	case "SCMP_CMP_GE":
		return v >= a.Value
	case maskedEqual:
		return v&a.Value == a.ValueTwo
	}
	panic("operator " + a.Op)
}

// allowsMore looks for arguments that narrow allows and wide does not, at and beside every value
// that either has a condition on, and at every single bit.
func allowsMore(narrow, wide []seccompRule) (point [3]uint64, found bool) {
	var values [3][]uint64
	for i := range values {
		values[i] = interesting(slices.Concat(narrow, wide), uint(i))
	}
	for _, a := range values[0] {
		for _, b := range values[1] {
			for _, c := range values[2] {
				if at := [3]uint64{a, b, c}; permits(narrow, at) && !permits(wide, at) {
					return at, true
				}
			}
		}
	}
	return point, false
}

func interesting(rules []seccompRule, index uint) []uint64 {
	values := []uint64{0}
	for _, r := range rules {
		for _, a := range r.Args {
			if a.Index != index {
				continue
			}
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				values = append(values, v, v-1, v+1, v|1<<32, v|1<<63)
			}
		}
	}
	if len(values) > 1 {
		for bit := range 64 {
			values = append(values, 1<<bit)
		}
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// stricter says in which way the profile allows less of a call than the default does, in lines; nothing if it does not.
func stricter(name string, wide, narrow []seccompRule) string {
	isAllowed := func(r seccompRule) bool { return r.Action == allow }
	if !slices.ContainsFunc(wide, isAllowed) {
		return ""
	}
	if !slices.ContainsFunc(narrow, isAllowed) {
		return fmt.Sprintf("denied    %s%s\n", name, errnoOf(narrow))
	}
	if conditionsOf(wide) == conditionsOf(narrow) {
		return ""
	}
	var out strings.Builder
	for _, r := range narrow {
		fmt.Fprintf(&out, "narrowed  %s(%s)%s\n", name, conditionsOf([]seccompRule{r}), errnoOf([]seccompRule{r}))
	}
	return out.String()
}

func errnoOf(rules []seccompRule) string {
	for _, r := range rules {
		if r.ErrnoRet != nil {
			return fmt.Sprintf(" with errno %d", *r.ErrnoRet)
		}
	}
	return ""
}

func conditionsOf(rules []seccompRule) string {
	var all []string
	for _, r := range rules {
		var one []string
		for _, a := range r.Args {
			if a.Op == maskedEqual {
				one = append(one, fmt.Sprintf("arg%d & %#x == %#x", a.Index, a.Value, a.ValueTwo))
			} else {
				one = append(one, fmt.Sprintf("arg%d %s %#x", a.Index, strings.TrimPrefix(a.Op, "SCMP_CMP_"), a.Value))
			}
		}
		all = append(all, strings.Join(one, ", "))
	}
	return strings.Join(all, " or ")
}
