package discover

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

const (
	maxFile         = 1 << 20 // bytes of one configuration file
	maxRequirements = 20      // files of requirements in one directory
)

// parser finds the addresses of a file.
type parser func(text string) []site

// projectFile is a file of a project that a tool reads its registries from.
type projectFile struct {
	name   string // below each directory from the project's root to where the agent starts
	bundle string
	parse  parser
}

func projectFiles() []projectFile {
	return []projectFile{
		{".npmrc", "npm", parseNpmrc},
		{".yarnrc.yml", "npm", parseYarnrc},
		{".yarnrc", "npm", parseYarnClassic},
		{"pip.conf", "pypi", parsePipConf},
		{"pyproject.toml", "pypi", parsePyproject},
		{"uv.toml", "pypi", parseUV},
		{".cargo/config.toml", "cargo", parseCargo},
		{".cargo/config", "cargo", parseCargo},
		{"settings.xml", "maven", parseMaven},
		{".mvn/settings.xml", "maven", parseMaven},
		{"pom.xml", "maven", parseMaven},
	}
}

// project reads the files of the project.
func (c *collector) project(dir, subdir string) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, at := range dirsTo(subdir) {
		for _, f := range projectFiles() {
			if c.wanted[f.bundle] {
				c.file(root, path.Join(at, f.name), f.bundle, f.parse)
			}
		}
		if c.wanted["pypi"] {
			for _, name := range requirements(root, at) {
				c.file(root, name, "pypi", parseRequirements)
			}
		}
	}
	return nil
}

// dirsTo are the directories from the root to sub: tools look for their configuration upwards.
func dirsTo(sub string) []string {
	dirs := []string{"."}
	sub = path.Clean(sub)
	if sub == "." || !fs.ValidPath(sub) {
		return dirs
	}
	for i, c := range sub {
		if c == '/' {
			dirs = append(dirs, sub[:i])
		}
	}
	return append(dirs, sub)
}

// requirements are the files that pip is usually pointed at.
func requirements(root *os.Root, dir string) []string {
	entries, err := readNames(root, dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, name := range entries {
		if strings.HasPrefix(name, "requirements") && strings.HasSuffix(name, ".txt") && len(names) < maxRequirements {
			names = append(names, path.Join(dir, name))
		}
	}
	return names
}

const maxNames = 10_000 // of a directory

func readNames(root *os.Root, dir string) ([]string, error) {
	f, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxNames)
	slices.Sort(names)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// file parses one file. One that is not there is as good as empty; one that can't be read is said.
func (c *collector) file(root *os.Root, name, bundle string, parse parser) {
	text, err := readFile(root, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		c.add(ofProject, bundle, "project: "+name, []site{{why: "can't be read: " + reason(err), mend: "name the registry's host in network.allow"}})
	default:
		c.add(ofProject, bundle, "project: "+name, parse(text))
	}
}

// reason is the error without the path, which the caller has said.
func reason(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return err.Error()
}

// readFile reads a regular file of the project. A symbolic link out of it is refused by root, and a pipe does not make us wait.
func readFile(root *os.Root, name string) (string, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is no file")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxFile {
		return "", fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return string(b), nil
}
