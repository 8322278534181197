package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestLoadBytes(t *testing.T) {
	for name, tt := range map[string]struct{ src, want string }{
		"byte order mark": {"\ufeffversion: 1\n", "f:1:1: the file starts with a byte order mark"},
		"NUL":             {"version: 1\nuser: a\x00b\n", "f:2:8: the character U+0000"},
		"not UTF-8":       {"version: 1\n# é\xff\n", "f:2:4: not valid UTF-8"},
		"UTF-16":          {"\xff\xfev\x00e\x00", "f:1:1: not valid UTF-8"},
		"reordering":      {"version: 1 # \u202e\n", "f:1:14: the character U+202E"},
		"escape code":     {"version: 1 # \x1b[31m\n", "f:1:14: the character U+001B"},
		"DEL":             {"version: 1\x7f", "f:1:11: the character U+007F"},
		"too large":       {"version: 1\n" + strings.Repeat("#", MaxSize), "f: the file is larger than 64 KiB"},
	} {
		_, err := Load("f", []byte(tt.src))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: Load = %v, want %s...", name, err, tt.want)
		}
	}
	if _, err := Load("f", []byte("version: 1\n"+strings.Repeat("#", MaxSize-11))); err != nil {
		t.Errorf("64 KiB are refused: %v", err)
	}
	if _, err := Load("f", []byte("version: 1\r\nuser: agent\r\n")); err != nil {
		t.Errorf("CR LF is refused: %v", err)
	}
}

// TestLoadHostile holds time and memory for the inputs that make YAML parsers explode.
func TestLoadHostile(t *testing.T) {
	fill := func(s string) string { return strings.Repeat(s, MaxSize/len(s)) }
	laughs := "a: &a [x]\n"
	for c := 'b'; c <= 'z'; c++ {
		laughs += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 50))
	}
	many := "version: 1\n"
	for i := range 3000 {
		many += fmt.Sprintf("k%d: &a%d 1\n", i, i)
	}
	for name, src := range map[string]string{
		"brackets": fill("["), "braces": fill("{"), "pairs": fill("{a: "), "dashes": fill("- "), "questions": fill("? "), "colons": fill(": "), "quotes": fill("'"), "anchors": fill("&a "), "tags": fill("!a "), "comments": fill("#\n"),
		"pipes": fill("|\n"), "newlines": fill("\n"), "documents": fill("---\n"), "flow lines": fill("[\n"), "long key": fill("k"), "keys": many, "laughs": laughs, "blanks": fill(" "), "commas": "[" + fill(",")[2:] + "]",
		"unknown below": "network: {allow: [" + strings.Repeat("{a: 1},", 9000) + "]}", "bad hosts": "version: 1\nnetwork: {allow: [" + strings.Repeat("a,", 400) + "]}",
		"long names": "version: 1\ncredentials: {" + strings.Repeat("K"+strings.Repeat("x", 1000)+": {a: 1},", 40) + "}",
	} {
		start := time.Now()
		p, err := Load(name, []byte(src))
		if err == nil || p != nil {
			t.Errorf("%s: Load = %v, %v", name, p, err)
			continue
		}
		if n, took := len(err.Error()), time.Since(start); n > 4<<20 || took > 10*time.Second {
			t.Errorf("%s: %d bytes of problems after %v", name, n, took)
		}
	}
}

func TestLoadFillsIn(t *testing.T) {
	got := mustLoad(t, "version: 1\n")
	if diff := cmp.Diff(Default(), got, cmpopts.IgnoreUnexported(Policy{})); diff != "" {
		t.Errorf("the smallest file differs from the default (-default +file):\n%s", diff)
	}
	if got.Digest() != Default().Digest() {
		t.Error("the smallest file has another digest than the default")
	}

	for _, f := range fixtures(t, "valid") {
		if f.Name != "everything.yaml" {
			continue
		}
		p := mustLoad(t, string(f.Data))
		if diff := cmp.Diff(Resources{
			CPUs: 0.5, Memory: 512 * MiB, PIDs: 4194304, Timeout: 90*time.Minute + 15*time.Second,
			Tmp: GiB, Run: 32 * MiB, Home: 2 * GiB, Shm: GiB, Disk: 20 * GiB, Output: 64 * KiB,
		}, p.Resources); diff != "" {
			t.Errorf("resources (-want +got):\n%s", diff)
		}
		want := []Mount{{"~/.cache/models", "/models", true}, {"../shared", "/shared", false}, {"/opt/sdk", "/opt/sdk", true}, {"C:/sdk", "/sdk", true}}
		if diff := cmp.Diff(want, p.Mounts); diff != "" {
			t.Errorf("mounts (-want +got):\n%s", diff)
		}
		wantEnv := []EnvVar{{"CI", "", true}, {"LANG", "C.UTF-8", false}, {"EMPTY", "", false}, {"NO_COLOR", "1", false}, {"SECRET_KEY", "dev-only", false}}
		if diff := cmp.Diff(wantEnv, p.Env); diff != "" {
			t.Errorf("env (-want +got):\n%s", diff)
		}
		var names []string
		for _, c := range p.Credentials {
			names = append(names, c.Name)
			if c.Place.IsZero() || c.Deliver == "" {
				t.Errorf("credential %+v", c)
			}
		}
		if !slices.IsSorted(names) || len(names) != 7 {
			t.Errorf("credentials %v", names)
		}
		if got := p.Workspace.Hide[len(DefaultHide())].String(); got != "secrets/" {
			t.Errorf("the file's first pattern is %q", got)
		}
		canonical, err := p.canonicalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, canonical, "", "  "); err != nil {
			t.Fatal(err)
		}
		checkGolden(t, "everything.json", append(indented.Bytes(), '\n'))
		return
	}
	t.Fatal("no fixture everything.yaml")
}

func TestPlaces(t *testing.T) {
	p := mustLoad(t, "version: 1\nnetwork:\n  allow:\n    - npm\n    - {host: example.org, port: 22, tcp: true}\nresources: {memory: 1GiB}\n")
	for path, want := range map[string]string{
		"network": "policy.yaml:2:1", "network.allow": "policy.yaml:3:3", "network.allow[1]": "policy.yaml:5:7", "network.allow[1].tcp": "policy.yaml:5:37", "resources.memory": "policy.yaml:6:13", "evidence": "default",
	} {
		if got := p.Place(path).String(); got != want {
			t.Errorf("Place(%s) = %s, want %s", path, got, want)
		}
	}
	if p.Name() != "policy.yaml" || !Default().Place("version").IsZero() {
		t.Error("names and places of policies")
	}
}

func TestDigest(t *testing.T) {
	base := "version: 1\nnetwork: {allow: [npm, example.org], deny: [bad.example]}\nresources: {memory: 1GiB}\ncaches: [go, npm]\n"
	want := mustLoad(t, base).Digest()
	same := "# other words\nresources: {memory: 1024MiB, timeout: 30m}\ncaches: [npm, go]\nnetwork:\n  deny: [BAD.example]\n  allow:\n    - npm\n    - {host: EXAMPLE.org, port: 443}\nversion: 1\nworkspace: {mode: overlay}\n"
	if got := mustLoad(t, same).Digest(); got != want {
		t.Errorf("the same policy in other words has another digest")
	}
	if len(want) != len("sha256:")+64 || !strings.HasPrefix(want, "sha256:") {
		t.Errorf("digest %q", want)
	}
	for _, change := range [][2]string{{"npm, ex", "go, ex"}, {"example.org", "example.com"}, {"bad", "worse"}, {"1GiB", "2GiB"}, {"version: 1", "version: 1\nuser: root"}, {"version: 1", "version: 1\nenv: [CI]"}} {
		other := strings.Replace(base, change[0], change[1], 1)
		if mustLoad(t, other).Digest() == want {
			t.Errorf("%q for %q does not change the digest", change[1], change[0])
		}
	}
}

func TestUnsupported(t *testing.T) {
	for _, f := range fixtures(t, "valid") {
		p, err := Load(f.Name, f.Data)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name == "everything.yaml" {
			var out strings.Builder
			for _, problem := range Unsupported(p, Features{}) {
				fmt.Fprintln(&out, problem)
			}
			checkGolden(t, "unsupported.golden", []byte(out.String()))
		}
		all := Features{true, allCredentials(), true, true, true, true, true, true}
		if problems := Unsupported(p, all); len(problems) > 0 {
			t.Errorf("%s with all features: %v", f.Name, problems)
		}
	}
	if problems := Unsupported(Default(), Features{}); len(problems) > 0 {
		t.Errorf("the default is not supported: %v", problems)
	}
}

// allCredentials are the features of a program that can do everything.
func allCredentials() (all []CredentialFeature) {
	for _, kind := range OriginKinds() {
		for _, d := range []Deliver{DeliverInject, DeliverEnv, DeliverFile} {
			all = append(all, CredentialFeature{kind, d})
		}
	}
	return all
}

// TestUnsupportedCredentials: a source alone does not bring every delivery, nor a delivery every source.
func TestUnsupportedCredentials(t *testing.T) {
	p := mustLoad(t, "version: 1\ncredentials:\n  a: {from: 'env:A'}\n  b: {from: 'env:B', deliver: env, env: B}\n"+
		"  c: {from: 'exec:c'}\n  d: {from: 'env:D', rotate: 30d}\n  e: {from: 'env:E', deliver: file}\n")
	have := Features{Credentials: []CredentialFeature{{"env", DeliverInject}}}
	var got []string
	for _, problem := range Unsupported(p, have) {
		got = append(got, problem.Path+": "+problem.Message)
	}
	want := []string{
		"credentials.b.deliver: this version can't deliver credentials from env as env yet",
		"credentials.c: this version can't get credentials from exec yet",
		"credentials.d.rotate: this version can't tell the age of a credential yet",
		"credentials.e.deliver: this version can't deliver credentials from env as file yet",
	}
	if !slices.Equal(got, want) {
		t.Errorf("unsupported are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	have.Credentials, have.Rotation = allCredentials(), true
	if problems := Unsupported(p, have); len(problems) > 0 {
		t.Errorf("with everything: %v", problems)
	}
}

func TestUnits(t *testing.T) {
	for s, want := range map[string]Bytes{"0B": 0, "1B": 1, "512MiB": 512 * MiB, "4GiB": 4 * GiB, "1536KiB": 1536 * KiB, "2TiB": 2 * TiB} {
		got, err := ParseBytes(s)
		if err != nil || got != want || got.String() != s {
			t.Errorf("ParseBytes(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "1", "GiB", "1 GiB", "1.5GiB", "-1GiB", "+1GiB", "01GiB", "4GB", "4g", "4gib", "1e3B", "999999999999TiB", "9999999999999B", "١GiB"} {
		if got, err := ParseBytes(s); err == nil {
			t.Errorf("ParseBytes(%q) = %v", s, got)
		}
	}
	for s, want := range map[string]time.Duration{"0s": 0, "30m": 30 * time.Minute, "1h30m": 90 * time.Minute, "90d": 90 * day, "1d1h1m1s": day + time.Hour + time.Minute + time.Second} {
		got, err := ParseDuration(s)
		if err != nil || got != want || FormatDuration(got) != s {
			t.Errorf("ParseDuration(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "1", "s", "1m1h", "1h1h", "1.5h", "-1h", "1ms", "1w", "1 h", "999999999999d", "36501d", "100000000000s", "١h"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q) = %v", s, got)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"image", "network", "resources", "seccomp", "user"}
	for s, want := range map[string]string{"imagge": "image", "netwrok": "network", "Network": "network", "resource": "resources", "usr": "user", "x": "", "": "", "completely-else": "", strings.Repeat("image", 100): ""} {
		if got := nearest(s, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", s, got, want)
		}
	}
}

// FuzzLoad: whatever the file, an error is a sorted list of problems that name their place; a policy is complete, and the
// schema accepts what the loader does.
func FuzzLoad(f *testing.F) {
	for _, kind := range []string{"valid", "invalid", "beyond", "yaml"} {
		for _, file := range fixtures(f, kind) {
			f.Add(file.Data)
		}
	}
	s := compiledSchema(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := Load("f", src)
		if err != nil {
			var problems Problems
			if p != nil || !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("Load = %v, %v", p, err)
			}
			for _, problem := range problems {
				if problem.Message == "" || problem.Place.File != "f" || strings.ContainsAny(problem.Error(), "\n\r\x1b\x00") {
					t.Errorf("problem %+v", problem)
				}
			}
			return
		}
		if p.Version != Version || p.User == "" || p.Workspace.Mode == "" || p.Resources.Memory == 0 || p.Evidence.Sign == "" || len(p.Workspace.Hide) < len(DefaultHide()) {
			t.Errorf("an incomplete policy: %+v", p)
		}
		for _, rule := range slices.Concat(p.Network.Allow, p.Network.Deny) {
			if (rule.Bundle == "") == rule.Host.IsZero() || rule.Place.IsZero() || rule.Bundle == "" && len(rule.Ports) == 0 {
				t.Errorf("an incomplete rule: %+v", rule)
			}
		}
		for _, rule := range p.Network.Allow { // a rule can be printed and read again
			again, err := Load("f", []byte("version: 1\nnetwork:\n  allow:\n    - "+rule.String()+"\n"))
			if err != nil || again.Network.Allow[0].String() != rule.String() {
				t.Errorf("rule %s: %v", rule, err)
			}
		}
		if !strings.HasPrefix(p.Digest(), "sha256:") {
			t.Error("no digest")
		}
		if narrowed, _, err := Narrow(p, p); err != nil || narrowed.Resources != p.Resources {
			t.Errorf("a policy is not under itself: %v", err)
		}
		if v, ok := instance(t, src); ok {
			if err := s.Validate(v); err != nil {
				t.Errorf("the loader accepts what the schema refuses: %v", err)
			}
		}
	})
}
