//go:build docker

package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/image"
)

// npmStandIn is a base whose npm fetches nothing and installs a program that prints its task; first it does what script says. The real
// ones take minutes and a registry: `make images` has them.
func npmStandIn(t *testing.T, script string) string {
	t.Helper()
	npm := `#!/bin/sh
set -eu
` + script + `
dir=node_modules/@anthropic-ai
mkdir -p node_modules/.bin "$dir/claude-code/bin" "$dir/claude-code-linux-x64"
version=$(node -p 'require("./package-lock.json").packages["node_modules/@anthropic-ai/claude-code"].version')
echo "{\"name\": \"@anthropic-ai/claude-code\", \"version\": \"$version\"}" >"$dir/claude-code/package.json"
printf '#!/bin/sh\nfor task; do :; done\necho "$task"\n' >"$dir/claude-code-linux-x64/claude"
chmod 755 "$dir/claude-code-linux-x64/claude"
ln -s ../@anthropic-ai/claude-code/bin/claude.exe node_modules/.bin/claude
`
	dir := t.TempDir()
	for name, text := range map[string]string{
		"npm": npm, "Dockerfile": "FROM " + testImage() + "\nUSER root\nCOPY npm /usr/bin/npm\nRUN chmod 755 /usr/bin/npm\nUSER agent\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	name := imageName(t)
	docker(t, nil, "build", "-q", "-t", name, dir)
	return name
}

// TestLockAgents: an agent that the policy has installed is locked with its version, runs in CI by nothing but its task, and is refused
// once the lock says another version, another lock file of npm, or the image is another.
func TestLockAgents(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.limit = 10 * time.Minute // images are built
	u.env = append(u.env, "DOCKER_BUILDKIT=1", "ANTHROPIC_API_KEY="+agentCases()[0].key)
	base := npmStandIn(t, "")
	u.policy("image: {from: \"" + base + "\", agents: [claude]}\nagent: claude\n")
	const task = "mend the test"
	u.wantRefused(u.sandbox(true, "run", task), "no entry for "+base+" with claude", "image lock")
	bare := newUser(t)
	bare.env = append(bare.env, "ANTHROPIC_API_KEY="+agentCases()[0].key)
	bare.wantRefused(bare.sandbox(true, "run", "--agent", "claude", task), "no entry for "+defaultImage+" with claude", "`agent: claude` in the policy", "image lock")
	u.wantCode(u.sandbox(false, "image", "lock", "--offline"), 0)
	lock := filepath.Join(u.project, image.LockFile)
	locks, err := image.ReadLock(lock)
	if err != nil {
		t.Fatal(err)
	}
	kit, _ := policy.LookupKit("claude")
	e := locks.Images["from:"+base+"+claude"]
	if e.Agents["claude"] != kit.Version || e.Build == nil || !e.Build.Offline || e.Build.Agents["claude"].Version != kit.Version {
		t.Fatalf("the lock's entry is %+v, want one built offline with claude %s", e, kit.Version)
	}
	name := image.Tag(e.Build.Inputs)
	t.Cleanup(func() { docker(t, nil, "rmi", "-f", name) })
	r := u.sandbox(true, "run", task)
	u.wantCode(r, 0)
	u.wantImage(true, false)
	if r.stdout != task+"\n" {
		t.Errorf("the agent printed %q, want its task", r.stdout)
	}

	docker(t, nil, "rmi", name)
	u.env = append(u.env, "SOURCE_DATE_EPOCH=1600000000") // the lock's counts
	u.wantCode(u.sandbox(true, "run", task), 0)           // a fresh machine builds it, here from the cache, to the locked digest
	u.wantImage(true, false)

	was, err := os.ReadFile(lock)
	if err != nil {
		t.Fatal(err)
	}
	text := string(was)
	other := regexp.MustCompile(`\d$`).ReplaceAllString(kit.Version, "0")
	u.write(image.LockFile, strings.ReplaceAll(text, `"`+kit.Version+`"`, `"`+other+`"`), 0o644)
	u.wantRefused(u.sandbox(true, "run", task), "the agent claude is "+kit.Version+" by its kit, and "+other+" in the lock", "image lock")
	u.write(image.LockFile, strings.Replace(text, `"`+kit.Version+`"`, `"`+other+`"`, 1), 0o644)
	r = u.sandbox(true, "run", task)
	u.wantCode(r, exitUsage)
	if !strings.Contains(r.stderr, "agents.claude: ") || !strings.Contains(r.stderr, "image lock") {
		t.Errorf("stderr does not tell the mend: %s", r.stderr)
	}
	altered := e.Build.Agents["claude"].Lock
	u.write(image.LockFile, strings.ReplaceAll(text, altered, altered[:len(altered)-1]+flipped(altered)), 0o644)
	u.wantRefused(u.sandbox(true, "run", task), "what is installed for the agent claude "+kit.Version+" is not what the lock has", "image lock")
	u.write(image.LockFile, text, 0o644)
	docker(t, nil, "tag", testImage(), name)
	u.wantRefused(u.sandbox(true, "run", task), "is not the image that .agent-sandbox.lock names")
}

// TestAgentsCAFile: npm can trust the certificates of --ca-file, and an image that would have them in it is not made.
func TestAgentsCAFile(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	u.limit = 10 * time.Minute // images are built
	u.env = append(u.env, "DOCKER_BUILDKIT=1")
	server := httptest.NewTLSServer(nil)
	t.Cleanup(server.Close)
	u.write("ca.pem", string(certificatePEM(server.Certificate())), 0o644)
	build := func(base string, args ...string) result {
		u.policy("image: {from: \"" + base + "\", agents: [claude]}\n")
		return u.sandbox(false, append([]string{"image", "build", "--offline"}, args...)...)
	}
	trusts := npmStandIn(t, `grep -q "BEGIN CERTIFICATE" "$NODE_EXTRA_CA_CERTS"`)
	u.wantCode(build(trusts), exitError) // the control: without it there is nothing to trust
	r := build(trusts, "--ca-file", "ca.pem")
	u.wantCode(r, 0)
	name, _, _ := strings.Cut(r.stdout, " ")
	t.Cleanup(func() { docker(t, nil, "rmi", "-f", name) })
	u.wantCode(u.sandbox(false, "run", "--image", name, "--", "sh", "-c", "! test -e /.agent-sandbox-build && ! env | grep CERT"), 0)
	r = build(npmStandIn(t, `mkdir node_modules; cp "$NODE_EXTRA_CA_CERTS" node_modules/kept.pem`), "--ca-file", "ca.pem")
	u.wantCode(r, exitError)
	if !strings.Contains(r.stderr, "/opt/agents/claude/node_modules/kept.pem") {
		t.Errorf("stderr does not name the copy: %s", r.stderr)
	}
}

// flipped is another digit than a digest ends with.
func flipped(digest string) string {
	if strings.HasSuffix(digest, "0") {
		return "1"
	}
	return "0"
}
