package discover

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/org/agent-sandbox/policy"
)

// kept is what an image said, as it is kept: hosts and where they are from, and never what surrounds them in the image's files.
type kept struct {
	Sites   []keptSite        `json:"sites"`
	Missing map[string]string `json:"missing"` // bundle -> why there is nothing
}

type keptSite struct {
	Bundle string `json:"bundle"`
	Source string `json:"source"`
	Level  level  `json:"level"`
	Host   string `json:"host,omitempty"`
	Port   uint16 `json:"port,omitempty"`
	Key    string `json:"key,omitempty"`
	Line   int    `json:"line,omitempty"`
	Name   string `json:"name,omitempty"`
	Why    string `json:"why,omitempty"`
	Mend   string `json:"mend,omitempty"`
}

func (k *kept) add(at level, bundle, source string, found []site) {
	for _, s := range found {
		if bundle != "" && len(k.Sites) < maxEntries {
			k.Sites = append(k.Sites, keptSite{bundle, source, at, s.host.String(), s.port, s.key, s.line, s.name, s.why, s.mend})
		}
	}
}

// into adds what is kept to what is found. A host goes through the same checks as when it was parsed, since it was
// in a file meanwhile.
func (k kept) into(c *collector) {
	for name, why := range k.Missing {
		c.missing[name] = why
	}
	for _, s := range k.Sites {
		one := site{port: s.Port, key: s.Key, line: s.Line, name: s.Name, why: s.Why, mend: s.Mend}
		if s.Host != "" {
			host, err := policy.ParseHost(s.Host)
			if err != nil || host.NeedsEntry() != "" || s.Port == 0 {
				continue
			}
			one.host = host
		}
		c.add(s.Level, s.Bundle, s.Source, []site{one})
	}
}

// maxKept bounds the file, in bytes.
const maxKept = 1 << 20

func keptName(dir, image string) string {
	sum := sha256.Sum256([]byte(image))
	return filepath.Join(dir, fmt.Sprintf("%s-v%d.json", hex.EncodeToString(sum[:16]), probeVersion))
}

// loadKept reads what is kept of an image. What is damaged is as good as none.
func loadKept(dir, image string) (k kept, ok bool) {
	if dir == "" {
		return k, false
	}
	f, err := os.Open(keptName(dir, image))
	if err != nil {
		return k, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKept+1))
	if err != nil || len(b) > maxKept || json.Unmarshal(b, &k) != nil {
		return kept{}, false
	}
	return k, true
}

// save keeps what the image said: in place at once or not at all, readable by its owner alone.
func (k kept) save(dir, image string) (err error) {
	if dir == "" {
		return nil
	}
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep what the image said: %w", err)
	}
	temp, err := os.CreateTemp(dir, ".tmp-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keep what the image said: %w", err)
	}
	_, err = temp.Write(b)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), keptName(dir, image))
	}
	if err != nil {
		return fmt.Errorf("keep what the image said: %w", errors.Join(err, os.Remove(temp.Name())))
	}
	return nil
}
