package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/org/agent-sandbox/"

// arrows is what each package may import besides the standard library: packages of ours by their path in the module,
// others by the path of the module or of a part of it. A new line is a reviewed change; one that nobody needs goes.
//
// The order from top to bottom is that of the arrows: nobody imports what stands above it.
func arrows() map[string][]string {
	return map[string][]string{
		"cmd/agent-sandbox": {
			"policy", "policy/convert", "runner", "runner/actions", "runner/broker", "runner/broker/selftest", "runner/credential", "runner/discover", "runner/egress", "runner/engine", "runner/event", "runner/image", "runner/issuer", "runner/link", "runner/manifest", "runner/runs", "runner/secret",
			"runner/credential/rotate", "runner/scaffold", "runner/workspace",
			"github.com/spf13/cobra", "golang.org/x/sys", "golang.org/x/term",
		},
		"cmd/guest": {"runner/guest"},

		"runner": {
			"policy", "runner/credential", "runner/credential/rotate", "runner/discover", "runner/egress", "runner/engine", "runner/event", "runner/link", "runner/manifest", "runner/runs", "runner/secret",
			"runner/workspace", "runner/workspace/ovl",
			"golang.org/x/sync",
		},
		"runner/credential/rotate": {
			"policy", "runner/credential", "runner/event", "runner/secret", "github.com/hashicorp/go-retryablehttp", "golang.org/x/crypto", "golang.org/x/sys",
		},
		"runner/actions":    {"runner/event", "runner/secret", "github.com/google/go-github/v60", "github.com/hashicorp/go-retryablehttp", "github.com/sethvargo/go-githubactions"},
		"runner/image":      {"runner/engine", "github.com/google/go-containerregistry", "golang.org/x/sync"},
		"runner/scaffold":   {"policy"},
		"runner/issuer":     {"github.com/go-jose/go-jose/v4"},
		"runner/engine":     {"github.com/containerd/errdefs", "github.com/docker/docker", "github.com/docker/go-units"},
		"runner/credential": {"policy", "runner/event", "runner/secret", "github.com/hashicorp/go-retryablehttp"},
		"runner/discover":   {"policy"},
		"runner/egress":     {"policy", "runner/secret", "runner/splice", "golang.org/x/net"},
		"runner/runs":       {"runner/event", "golang.org/x/sys"},
		"runner/workspace":  {"policy", "runner/secret", "runner/workspace/ovl", "golang.org/x/sync", "golang.org/x/sys"},
		"runner/guest": {
			"runner/link", "runner/workspace/ovl",
			"github.com/creack/pty", "github.com/google/nftables", "github.com/mdlayher/netlink", "github.com/vishvananda/netlink",
			"golang.org/x/net/dns/dnsmessage", "golang.org/x/sys",
		},
		"runner/splice":        {"golang.org/x/sys"},
		"runner/link":          {"github.com/hashicorp/yamux", "golang.org/x/sys"},
		"runner/workspace/ovl": {"golang.org/x/sys"},
		"runner/manifest": {
			"runner/event", "runner/secret",
			"github.com/digitorus/timestamp", "github.com/hashicorp/go-retryablehttp", "github.com/secure-systems-lab/go-securesystemslib",
			"github.com/sigstore/timestamp-authority/v2/pkg/verification", "github.com/youmark/pkcs8", "golang.org/x/crypto",
		},
		"runner/event": nil,
		"runner/broker": {
			"policy", "runner/secret",
			"github.com/go-jose/go-jose/v4", "github.com/jackc/pgx/v5", "go.yaml.in/yaml/v4", "golang.org/x/sync", "modernc.org/sqlite",
		},
		"runner/broker/selftest": {"runner/secret", "github.com/go-jose/go-jose/v4"},
		"runner/secret":          nil,
		"policy/convert":         {"policy"},
		"policy":                 {"go.yaml.in/yaml/v4", "golang.org/x/net"},

		// What tests share.
		"runner/runnertest": {"github.com/digitorus/timestamp", "github.com/santhosh-tekuri/jsonschema/v6", "golang.org/x/crypto"},

		// Programs of tests, which are built as programs.
		"runner/engine/internal/sysprobe": {"golang.org/x/sys"},
		"runner/internal/escapeprobe":     {"golang.org/x/sys"},
		"runner/internal/hostileguest":    {"runner/link"},
		"runner/internal/tracesearch":     nil,
	}
}

func TestArrows(t *testing.T) {
	table := arrows()
	used := map[string]map[string]bool{} // package -> entry of the table
	for pkg, imports := range importsOf(t, func(name string) bool { return !strings.HasSuffix(name, "_test.go") }) {
		allowed, listed := table[pkg]
		if !listed {
			t.Errorf("package %s is not in the table of arrows", pkg)
			continue
		}
		used[pkg] = map[string]bool{}
		for imported, file := range imports {
			entry := entryFor(allowed, imported)
			if entry == "" {
				t.Errorf("%s imports %s: there is no such arrow from %s", file, imported, pkg)
			}
			used[pkg][entry] = true
		}
	}
	for pkg, allowed := range table {
		if used[pkg] == nil {
			t.Errorf("the table of arrows has %s, which does not exist", pkg)
		}
		for _, entry := range allowed {
			if !used[pkg][entry] {
				t.Errorf("the table of arrows allows %s -> %s, which nobody needs", pkg, entry)
			}
		}
	}
}

// The Docker client stays in one package, in tests too.
func TestArrowDocker(t *testing.T) {
	for pkg, imports := range importsOf(t, func(string) bool { return true }) {
		for imported, file := range imports {
			if strings.HasPrefix(imported, "github.com/docker/docker/") && pkg != "runner/engine" {
				t.Errorf("%s imports %s: only runner/engine talks to Docker", file, imported)
			}
		}
	}
}

// What runs in the sandbox stays small: nothing of the engine, the policy or the record gets in by a detour.
func TestArrowsOfGuest(t *testing.T) {
	table := arrows()
	reached := map[string]bool{}
	var visit func(pkg string)
	visit = func(pkg string) {
		for _, next := range table[pkg] {
			if _, ours := table[next]; ours && !reached[next] {
				reached[next] = true
				visit(next)
			}
		}
	}
	visit("cmd/guest")
	got := slices.Sorted(maps.Keys(reached))
	if want := []string{"runner/guest", "runner/link", "runner/workspace/ovl"}; !slices.Equal(got, want) {
		t.Errorf("the guest is made of %q, want %q", got, want)
	}
}

// entryFor is the entry that allows an import, empty if none does.
func entryFor(allowed []string, imported string) string {
	for _, entry := range allowed {
		if imported == entry || strings.Contains(entry, ".") && strings.HasPrefix(imported, entry+"/") {
			return entry
		}
	}
	return ""
}

// importsOf reads the import clauses of the whole tree, whatever a file is built for: package -> import -> a file that
// has it. The standard library is left out.
func importsOf(t *testing.T, include func(name string) bool) map[string]map[string]string {
	t.Helper()
	root := filepath.Join("..", "..")
	found := map[string]map[string]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != root && (base == "testdata" || base == "bin" || base == "var" || strings.HasPrefix(base, ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || !include(name) {
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		return addImports(found, name, filepath.ToSlash(rel))
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func addImports(found map[string]map[string]string, name, rel string) error {
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
	if err != nil {
		return err
	}
	pkg := path.Dir(rel)
	if found[pkg] == nil {
		found[pkg] = map[string]string{}
	}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") {
			found[pkg][strings.TrimPrefix(imported, module)] = rel
		}
	}
	return nil
}
