//go:build docker

package runner

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// ownPart is the part of a token that is nobody else's: all JWTs of one algorithm begin alike.
func ownPart(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	return rest
}

// spelled are the spellings of a secret, cut into pieces that overlap, so that a secret which is split is found too.
func spelled(name, secret string) map[string]string {
	reversed := []byte(secret)
	slices.Reverse(reversed)
	whole := map[string]string{
		"text": secret, "text backwards": string(reversed),
		"hex": hex.EncodeToString([]byte(secret)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(secret))),
	}
	for before := range 3 {
		// The first and the last four characters have a part of what stands around.
		encoded := []byte(strings.Repeat(".", before) + secret)
		whole[fmt.Sprintf("base64 at %d", before)] = inner(base64.RawStdEncoding.EncodeToString(encoded))
		whole[fmt.Sprintf("base64url at %d", before)] = inner(base64.RawURLEncoding.EncodeToString(encoded))
	}
	for form, format := range map[string]string{"URL": "%%%02X", "url": "%%%02x", "JSON": `\u%04x`, "C": `\x%02x`} {
		var b strings.Builder
		for _, c := range []byte(secret) {
			fmt.Fprintf(&b, format, c)
		}
		whole[form] = b.String()
	}
	const piece, step = 16, 8
	pieces := map[string]string{}
	for form, text := range whole {
		for at := 0; at+piece <= len(text); at += step {
			pieces[fmt.Sprintf("%s %s, from %d", name, form, at)] = text[at : at+piece]
		}
	}
	return pieces
}

func inner(encoded string) string { return encoded[4 : len(encoded)-4] }

// traces is tracesearch's report; see there.
type traces struct {
	Processes []searchedProcess `json:"processes"`
	Files     int               `json:"files"`
	FileBytes int64             `json:"file_bytes"`
	Found     []trace           `json:"found"`
}

type searchedProcess struct {
	PID    int
	Name   string
	Memory int64
}

type trace struct{ Where, Text string }

func (t traces) memory() (n int64) {
	for _, p := range t.Processes {
		n += p.Memory
	}
	return n
}

// searchTraces looks for the texts in all that a running sandbox has.
func (l *lab) searchTraces(t *testing.T, run string, texts map[string]string) (traces, error) {
	t.Helper()
	encoded := map[string][]byte{}
	for name, text := range texts {
		encoded[name] = []byte(text)
	}
	request, err := json.Marshal(map[string]any{"texts": encoded})
	if err != nil {
		return traces{}, err
	}
	id := docker(t, "ps", "--quiet", "--filter", "label=agent-sandbox="+run)
	cmd := exec.CommandContext(t.Context(), "docker", "run", "--rm", "--interactive", "--network", "none", "--pid", "container:"+id, "--user", "0",
		"--cap-add", "SYS_PTRACE", "--security-opt", "apparmor=unconfined", "--volume", l.traces+":/tracesearch:ro", "--entrypoint", "/tracesearch", l.image)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(request), &stderr
	out, err := cmd.Output()
	if err != nil {
		return traces{}, fmt.Errorf("tracesearch: %w\n%s", err, stderr.Bytes())
	}
	var found traces
	return found, json.Unmarshal(out, &found)
}

// seen waits until something has happened at a server.
func seen(ctx context.Context, happened func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, boxTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for what should be seen: %w", ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}
