package egress

import (
	"bytes"
	"strings"
	"testing"
)

func pkts(texts ...string) string {
	var b strings.Builder
	for _, text := range texts {
		b.Write(packet(text))
	}
	return b.String()
}

func TestReadPush(t *testing.T) {
	command, caps := oldID+" "+newID+" refs/heads/", "\x00 report-status side-band-64k object-format=sha1"
	for _, tt := range []struct {
		name, body string
		refs       string // "refused": it is
	}{
		{"one", pkts(command+"a"+caps) + "0000PACK", "refs/heads/a"},
		{"two", pkts(command+"a"+caps, command+"b\n") + "0000PACK", "refs/heads/a refs/heads/b"},
		{"deleted alone", pkts(oldID+" "+strings.Repeat("0", 40)+" refs/heads/a"+caps) + "0000", "refs/heads/a"},
		{"shallow", pkts("shallow "+oldID, command+"a"+caps) + "0000PACK", "refs/heads/a"},
		{"push options", pkts(command+"a"+caps+" push-options") + "0000" + pkts("ci.skip") + "0000PACK", "refs/heads/a"},
		{"the probe", "0000", ""},
		{"a probe with more", "0000" + pkts(command+"main"+caps) + "0000", "refused"},
		{"signed", pkts("push-cert\x00"+caps, "certificate version 0.1\n") + "0000", "refused"},
		{"capabilities twice", pkts(command+"a"+caps, command+"b"+caps) + "0000", "refused"},
		{"no capabilities", pkts(command+"a") + "0000", "refused"},
		{"not closed", pkts(command + "a" + caps), "refused"},
		{"cut", "00", "refused"},
		{"empty", "", "refused"},
		{"delimiter", "0001" + pkts(command+"a"+caps) + "0000", "refused"},
		{"length with a sign", "+0a1", "refused"},
		{"two NULs", pkts(command+"a\x00x\x00refs/heads/main") + "0000", "refused"},
		{"line break in the name", pkts(command+"a\n"+command+"main"+caps) + "0000", "refused"},
		{"dots", pkts(command+"../main"+caps) + "0000", "refused"},
		{"not below refs", pkts(oldID+" "+newID+" HEAD"+caps) + "0000", "refused"},
		{"a star", pkts(command+"*"+caps) + "0000", "refused"},
		{"ids of two kinds", pkts(oldID+" "+newID+strings.Repeat("0", 24)+" refs/heads/a"+caps) + "0000", "refused"},
	} {
		p, err := readPush(strings.NewReader(tt.body))
		got := "refused"
		if err == nil {
			got = strings.Join(p.refs, " ")
		}
		if got != tt.refs {
			t.Errorf("%s: %q (%v), want %q", tt.name, got, err, tt.refs)
		}
	}
}

// FuzzReadPush: what was read is the beginning of the body, and is made of nothing but commands.
func FuzzReadPush(f *testing.F) {
	f.Add([]byte(pkts(oldID+" "+newID+" refs/heads/a\x00report-status") + "0000PACK"))
	f.Add([]byte("0000"))
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := readPush(bytes.NewReader(body))
		if err != nil {
			return
		}
		if !bytes.HasPrefix(body, p.read) || !bytes.HasSuffix(p.read, []byte("0000")) {
			t.Fatalf("%q was read of %q", p.read, body)
		}
		for _, ref := range p.refs {
			if !strings.HasPrefix(ref, "refs/") || strings.ContainsAny(ref, " \n\x00*") || !bytes.Contains(p.read, []byte(" "+ref)) {
				t.Fatalf("ref %q of %q", ref, body)
			}
		}
	})
}
