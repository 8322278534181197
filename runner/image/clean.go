package image

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cleaner takes out of an image what a build leaves behind by chance: what differs between two builds of the same inputs
// although nobody meant it. Only what the build itself made is touched; what the base has stays as it is.
type cleaner struct {
	base, full *node
	epoch      time.Time
}

// clean makes full what every build of the same inputs gives.
func (c *cleaner) clean() error {
	for _, name := range leftovers() {
		c.revert(name)
	}
	for _, dir := range emptied() {
		c.revertBelow(dir)
	}
	for _, home := range c.homes() {
		for _, name := range homeLeftovers() {
			c.revert(path.Join(home, name))
		}
	}
	c.revertMatching("var/log", func(_ string, n *node) bool { return n.kind == tar.TypeReg })
	c.revertMatching("var/lib/dpkg", func(name string, _ *node) bool { return strings.HasSuffix(name, "-old") })
	c.revertMatching("var/cache/debconf", func(name string, _ *node) bool { return strings.HasSuffix(name, "-old") })
	c.revertMatching("etc/ssh", func(name string, _ *node) bool { return strings.HasPrefix(name, "ssh_host_") })
	c.machineID()
	if err := c.shadow(); err != nil {
		return err
	}
	return c.bytecode()
}

// leftovers are files that a build changes and that nobody wants of it.
func leftovers() []string {
	return []string{
		// Mounted over by every engine; the builders leave different stubs.
		"etc/hostname", "etc/hosts", "etc/resolv.conf", ".dockerenv", "run/.containerenv", buildDir,
		// The accounts as they were before the last change.
		"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-",
		// Made anew from what is there when it is needed, with times in it.
		"var/cache/ldconfig/aux-cache", "etc/ld.so.cache~", "usr/share/info/dir.old", "var/lib/apt/periodic",
		// Random by design; every machine shall have its own.
		"var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret",
	}
}

// emptied are directories of which only the base's content stays.
func emptied() []string {
	return []string{
		"tmp", "var/tmp", "run", "dev", "proc", "sys", "var/lib/apt/lists",
		"var/cache/apt", "var/cache/man", "var/cache/fontconfig", "var/cache/dnf", "var/cache/apk", "usr/local/share/.cache/yarn",
	}
}

// homeLeftovers are what programs keep in a home directory of their last use. Not all of .cache: some keep there what they
// need to run, such as browsers.
func homeLeftovers() []string {
	return []string{
		".cache/pip", ".cache/uv", ".cache/go-build", ".cache/yarn", ".cache/pnpm",
		".npm/_cacache", ".npm/_logs", ".npm/_update-notifier-last-checked", ".npm/_locks",
		".bash_history", ".python_history", ".node_repl_history", ".lesshst", ".viminfo", ".wget-hsts",
	}
}

func (c *cleaner) homes() []string {
	homes := []string{"root"}
	if h := c.full.lookup("home"); h.isDir() {
		for _, name := range h.names() {
			homes = append(homes, "home/"+name)
		}
	}
	return homes
}

// revert gives a path back what the base has there.
func (c *cleaner) revert(name string) {
	dir, base := path.Split(name)
	at := c.full.in(strings.TrimSuffix(dir, "/"))
	if !at.isDir() {
		return
	}
	if old := c.base.lookup(name); old != nil {
		at.kids[base] = old.copyTree()
		return
	}
	delete(at.kids, base)
}

func (c *cleaner) revertBelow(dir string) {
	at := c.full.lookup(dir)
	if !at.isDir() {
		return
	}
	names := at.names()
	if old := c.base.lookup(dir); old.isDir() {
		names = append(names, old.names()...)
	}
	for _, name := range names {
		c.revert(path.Join(dir, name))
	}
}

// revertMatching reverts what is below dir and matches; name is the last part of its path.
func (c *cleaner) revertMatching(dir string, match func(name string, n *node) bool) {
	at := c.full.lookup(dir)
	if !at.isDir() {
		return
	}
	var found []string
	_ = at.walk(dir, func(name string, n *node) error { // the function has no errors
		if match(path.Base(name), n) {
			found = append(found, name)
		}
		return nil
	})
	for _, name := range found {
		c.revert(name)
	}
}

// machineID leaves an empty file where a build made an id up: that is how systemd knows that there is none yet
// (machine-id(5)).
func (c *cleaner) machineID() {
	const name = "etc/machine-id"
	n := c.full.lookup(name)
	if n == nil || n.kind != tar.TypeReg || n.size == 0 {
		return
	}
	if old := c.base.lookup(name); old == nil || !n.same(old) {
		c.full.lookup("etc").kids["machine-id"] = n.withContent([]byte{})
	}
}

// maxAccounts bounds an account file that is looked into.
const maxAccounts = 4 << 20

// shadow sets the day of the last password change of accounts that the build made: useradd writes today's (shadow(5)).
func (c *cleaner) shadow() error {
	const name = "etc/shadow"
	n := c.full.lookup(name)
	if n == nil || n.kind != tar.TypeReg || n.size > maxAccounts {
		return nil
	}
	text, err := n.read(maxAccounts)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	if old := c.base.lookup(name); old != nil && old.kind == tar.TypeReg && old.size <= maxAccounts {
		b, err := old.read(maxAccounts)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			known[line] = true
		}
	}
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		if f := strings.Split(line, ":"); !known[line] && len(f) > 3 && f[2] != "" {
			f[2] = strconv.FormatInt(c.epoch.Unix()/(24*60*60), 10)
			line = strings.Join(f, ":")
		}
		out.WriteString(line)
	}
	if out.String() != string(text) {
		c.full.lookup("etc").kids["shadow"] = n.withContent([]byte(out.String()))
	}
	return nil
}

// maxBytecode bounds a file of Python bytecode that is looked into.
const maxBytecode = 64 << 20

// bytecode puts the time that a Python source will have into its bytecode: Python takes bytecode for stale unless it holds
// the source's time and size (PEP 552). What was stale before goes.
func (c *cleaner) bytecode() error {
	type found struct {
		name string
		node *node
	}
	var all []found
	err := c.full.walk("", func(name string, n *node) error {
		if n.kind == tar.TypeReg && strings.HasSuffix(name, ".pyc") && c.isNew(name, n) {
			all = append(all, found{name, n})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, f := range all {
		if err := c.oneBytecode(f.name, f.node); err != nil {
			return err
		}
	}
	return nil
}

// isNew tells whether a path will be in the layer that is written.
func (c *cleaner) isNew(name string, n *node) bool {
	old := c.base.lookup(name)
	return old == nil || !n.same(old)
}

func (c *cleaner) oneBytecode(name string, n *node) error {
	sourceName := sourceOf(name)
	source := c.full.lookup(sourceName)
	if source == nil || source.kind != tar.TypeReg || n.size < 16 || n.size > maxBytecode {
		return nil
	}
	b, err := n.read(maxBytecode)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b[4:]) != 0 {
		return nil // it goes by the source's hash
	}
	was := binary.LittleEndian.Uint32(b[8:])
	size := binary.LittleEndian.Uint32(b[12:])
	will := source.modTime
	if c.isNew(sourceName, source) {
		will = c.epoch
	} else if old := c.base.lookup(sourceName); old != nil {
		will = old.modTime
	}
	if was != uint32(source.modTime.Unix()) || size != uint32(source.size) {
		c.revert(name)
		return nil
	}
	b = slices.Clone(b)
	binary.LittleEndian.PutUint32(b[8:], uint32(will.Unix()))
	c.full.lookup(path.Dir(name)).kids[path.Base(name)] = n.withContent(b)
	return nil
}

// sourceOf is the source of a file of bytecode: a/__pycache__/b.cpython-313.pyc is of a/b.py (PEP 3147).
func sourceOf(name string) string {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	if path.Base(dir) != "__pycache__" {
		return strings.TrimSuffix(name, "c")
	}
	stem, _, _ := strings.Cut(base, ".")
	return path.Join(path.Dir(dir), stem+".py")
}

// holds tells whether a file of the build's own has one of these texts in it, and which file.
func (c *cleaner) holds(secret [][]byte) (string, error) {
	for _, ch := range changes(c.base, c.full, "") {
		n := ch.node
		if n == nil || n.kind != tar.TypeReg || n.size > maxBytecode {
			continue
		}
		b, err := n.read(maxBytecode)
		if err != nil {
			return "", err
		}
		for _, s := range secret {
			if bytes.Contains(b, s) {
				return ch.name, nil
			}
		}
	}
	return "", nil
}
