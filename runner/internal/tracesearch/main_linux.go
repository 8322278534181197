// Command tracesearch looks for texts in everything that a sandbox has: the memory, environment and arguments of all its processes, and
// all files that they see. It runs as root in the sandbox's PID namespace, from a container of its own that may trace, so that nothing inside can
// hide from it. It judges nothing: the escape suite of package runner does. It is never shipped.
//
// Standard input has the texts, standard output what was searched and found, both as JSON.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// request has the texts by a name for each. None is shorter than windowSize.
type request struct {
	Texts map[string][]byte `json:"texts"`
}

// report says what was searched, so that an empty Found means something.
type report struct {
	Processes []process `json:"processes"`
	Files     int       `json:"files"`
	FileBytes int64     `json:"file_bytes"`
	Found     []hit     `json:"found"`
}

// process is one that was searched.
type process struct {
	PID    int    `json:"pid"`
	Name   string `json:"name"`
	Memory int64  `json:"memory"` // bytes that were read of it
}

// hit is one text in one place: "memory NAME", "environ NAME", "cmdline NAME" or the path of a file.
type hit struct {
	Where string `json:"where"`
	Text  string `json:"text"` // its name
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "tracesearch:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	var req request
	if err := json.NewDecoder(in).Decode(&req); err != nil {
		return err
	}
	s, err := newSearch(req.Texts)
	if err != nil {
		return err
	}
	var r report
	if err := r.processes(s); err != nil {
		return err
	}
	if err := r.files(s, "/proc/1/root"); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

// processes searches all but this one. One that ends meanwhile is left out.
func (r *report) processes(s *search) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue
		}
		p := process{PID: pid, Name: strings.TrimSpace(string(name))}
		for _, file := range []string{"environ", "cmdline"} {
			if b, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				r.note(s.in(b), file+" "+p.Name)
			}
		}
		if err := r.memory(s, dir, &p); err != nil {
			return fmt.Errorf("memory of process %d, %s: %w", pid, p.Name, err)
		}
		r.Processes = append(r.Processes, p)
	}
	return nil
}

// memory reads every readable mapping.
func (r *report) memory(s *search, dir string, p *process) error {
	maps, err := os.Open(filepath.Join(dir, "maps"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer maps.Close()
	mem, err := os.Open(filepath.Join(dir, "mem"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer mem.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var from, to int64
		var rights string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &rights); n != 3 || rights[0] != 'r' {
			continue
		}
		m := &mapping{mem: mem, at: from, end: to}
		found, n := s.through(m)
		p.Memory += n - m.unread
		r.note(found, "memory "+p.Name)
	}
	return lines.Err()
}

// mapping reads a part of a process's memory. A page that can't be read, such as one behind the end of a mapped file or of [vvar], counts as
// zeroes.
type mapping struct {
	mem     io.ReaderAt
	at, end int64
	unread  int64 // bytes
}

const pageSize = 4096

func (m *mapping) Read(p []byte) (int, error) {
	p = p[:min(int64(len(p)), m.end-m.at)]
	if len(p) == 0 {
		return 0, io.EOF
	}
	n, err := m.mem.ReadAt(p, m.at)
	if n == 0 {
		if errors.Is(err, io.EOF) { // the process has ended
			return 0, err
		}
		n = min(len(p), pageSize)
		clear(p[:n])
		m.unread += int64(n)
	}
	m.at += int64(n)
	return n, nil
}

// files searches all regular files below root but those of the kernel.
func (r *report) files(s *search, root string) error {
	return filepath.WalkDir(root+"/", func(path string, d fs.DirEntry, err error) error {
		inside := "/" + strings.TrimLeft(strings.TrimPrefix(path, root), "/")
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it went meanwhile
		case err != nil:
			return err
		case d.IsDir() && (inside == "/proc" || inside == "/sys"):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		defer f.Close()
		found, n := s.through(f)
		r.Files++
		r.FileBytes += n
		r.note(found, inside)
		return nil
	})
}

func (r *report) note(names map[string]bool, where string) {
	for name := range names {
		r.Found = append(r.Found, hit{where, name})
	}
}
