package event

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// writeLog is the log of everyEvent and its head.
func writeLog(tb testing.TB) ([]byte, Head) {
	tb.Helper()
	f := &memFile{room: -1}
	c := NewChain(f, testRun)
	for _, env := range envelopes(everyEvent()...) {
		if err := c.Handle(env); err != nil {
			tb.Fatal(err)
		}
	}
	head := c.Head()
	if err := c.Close(); err != nil {
		tb.Fatal(err)
	}
	return f.data, head
}

// readAll is the head of the good part of a log.
func readAll(log []byte, run string) (Head, error) {
	return ReadChain(bytes.NewReader(log), run, func(Envelope) error { return nil })
}

// verify holds a log against the head that was kept.
func verify(log []byte, kept Head) error {
	head, err := readAll(log, testRun)
	if err != nil {
		return err
	}
	return head.Compare(kept)
}

func problem(err error) Problem {
	if e, ok := errors.AsType[*ChainError](err); ok {
		return e.Problem
	}
	return ""
}

func TestVerifyGoodLog(t *testing.T) {
	log, want := writeLog(t)
	head, err := readAll(log, testRun)
	if err != nil || head != want || head.Count != uint64(len(everyEvent())) {
		t.Errorf("ReadChain = %+v, %v; want %+v", head, err, want)
	}
	if err := head.Compare(want); err != nil {
		t.Error(err)
	}
}

func TestVerifyEmptyLog(t *testing.T) {
	head, err := readAll(nil, testRun)
	if err != nil || head.Count != 0 || head != Genesis(testRun) {
		t.Errorf("ReadChain = %+v, %v", head, err)
	}
	if Genesis("a") == Genesis("b") {
		t.Error("two runs start with the same hash")
	}
}

// The first line's prev can be computed with sha256sum: the domain string is a contract.
func TestGenesisIsFixed(t *testing.T) {
	const want = "082c7e42226099b174e7fb7da31b586715b3a84e417c13320b4750802dc6ddaf"
	if got := Genesis(testRun).Hash; got != want {
		t.Errorf("Genesis(%q) = %s, want %s", testRun, got, want)
	}
}

func TestVerifyFindsTampering(t *testing.T) {
	log, head := writeLog(t)
	lines := bytes.SplitAfter(log, []byte("\n"))
	lines = lines[:len(lines)-1]
	join := func(parts ...[][]byte) []byte { return bytes.Join(bytesConcat(parts...), nil) }
	swap := func(i, j int) []byte {
		moved := bytesConcat(lines)
		moved[i], moved[j] = moved[j], moved[i]
		return join(moved)
	}
	replace := func(from, to string) []byte {
		if !bytes.Contains(log, []byte(from)) {
			t.Fatalf("the log has no %s", from)
		}
		return bytes.Replace(log, []byte(from), []byte(to), 1)
	}
	for _, tt := range []struct {
		name string
		log  []byte
		want Problem
	}{
		{"last lines cut", join(lines[:10]), Truncated},
		{"everything cut", nil, Truncated},
		{"torn last line", log[:len(log)-5], Torn},
		{"only the last newline missing", log[:len(log)-1], Torn},
		{"edit in the middle", replace("evil.example", "good.example"), Broken},
		{"edit of the last line", replace(`"exit_code":137`, `"exit_code":0`), Replaced},
		{"lines swapped", swap(3, 4), Broken},
		{"line removed", join(lines[:4], lines[5:]), Broken},
		{"first line removed", join(lines[1:]), Broken},
		{"line repeated", join(lines[:5], lines[4:]), Broken},
		{"line added", join(lines, lines[15:]), Broken},
		{"run id edited", replace(testRun, "20261123-152240-zzzzzz"), OtherRun},
		{"white space", replace(`"seq":2`, `"seq": 2`), Malformed},
		{"repeated key", replace(`"seq":2`, `"seq":2,"seq":2`), Malformed},
		{"key in another case", replace(`"run":"`+testRun+`","seq":2`, `"run":"`+testRun+`","seq":2,"ſeq":9`), Malformed},
		{"two objects", replace("}\n{", "}{}\n{"), Malformed},
		{"needless escape", replace("evil.example", `\u0065vil.example`), Malformed},
		{"bad UTF-8", replace("evil.example", "evil\xff.example"), Malformed},
		{"wrong type", replace(`"port":443`, `"port":"x"`), Malformed},
		{"not JSON", join(lines[:3], [][]byte{[]byte("\n")}), Malformed},
		{"zeros after a crash", append(join(lines[:3]), make([]byte, 4096)...), Torn},
		{"giant line", append(join(lines[:3]), bytes.Repeat([]byte("x"), 1<<20)...), TooLarge},
	} {
		err := verify(tt.log, head)
		if got := problem(err); got != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func bytesConcat(parts ...[][]byte) [][]byte {
	var all [][]byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func TestVerifyOtherRun(t *testing.T) {
	log, _ := writeLog(t)
	_, err := readAll(log, "20261123-152240-zzzzzz")
	if got := problem(err); got != OtherRun {
		t.Errorf("%v, want %q", err, OtherRun)
	}
}

func TestVerifyLongerLog(t *testing.T) {
	f := &memFile{room: -1}
	c := NewChain(f, testRun)
	var heads []Head
	for _, env := range envelopes(everyEvent()...) {
		if err := c.Handle(env); err != nil {
			t.Fatal(err)
		}
		heads = append(heads, c.Head())
	}
	err := verify(f.data, heads[4])
	if got := problem(err); got != Longer {
		t.Errorf("%v, want %q", err, Longer)
	}
}

// Wherever the writer died, the good part is read and the reader knows that it is a part.
func TestVerifyLogCutAnywhere(t *testing.T) {
	log, head := writeLog(t)
	for cut := 0; cut < len(log); cut++ {
		if nearEnd := bytes.IndexByte(log[cut:], '\n'); nearEnd > 2 && cut > 300 && cut%41 != 0 {
			continue // within a line one place is like another
		}
		err := verify(log[:cut], head)
		want := Torn
		if cut == 0 || log[cut-1] == '\n' {
			want = Truncated
		}
		if got := problem(err); got != want {
			t.Fatalf("cut at %d: %v, want %q", cut, err, want)
		}
		good, _ := readAll(log[:cut], testRun)
		if whole := bytes.Count(log[:cut], []byte("\n")); good.Count != uint64(whole) {
			t.Fatalf("cut at %d: %d good lines, want %d", cut, good.Count, whole)
		}
	}
}

func TestReadChainStopsWithCaller(t *testing.T) {
	log, _ := writeLog(t)
	seen := 0
	head, err := ReadChain(bytes.NewReader(log), testRun, func(Envelope) error {
		seen++
		if seen == 3 {
			return errSink
		}
		return nil
	})
	if !errors.Is(err, errSink) || head.Count != 2 {
		t.Errorf("ReadChain = %+v, %v; want 2 lines and the caller's error", head, err)
	}
}

// A forger who can rewrite the whole log gets the hashes right; the rest must be right too.
func TestVerifyForgedLine(t *testing.T) {
	for name, line := range map[string]string{
		"good":             `{"data":{},"kind":"warning","prev":"%s","run":"%s","seq":1,"time":"2026-11-23T15:22:40Z"}`,
		"gap":              `{"data":{},"kind":"warning","prev":"%s","run":"%s","seq":2,"time":"2026-11-23T15:22:40Z"}`,
		"key of two cases": `{"Kind":"run.finished","data":{},"kind":"warning","prev":"%s","run":"%s","seq":1,"time":"2026-11-23T15:22:40Z"}`,
		"no time":          `{"data":{},"kind":"warning","prev":"%s","run":"%s","seq":1,"time":"yesterday"}`,
	} {
		log := fmt.Sprintf(line, Genesis(testRun).Hash, testRun) + "\n"
		head, err := readAll([]byte(log), testRun)
		if good := name == "good"; good != (err == nil) || good != (head.Count == 1) {
			t.Errorf("%s: %d lines, %v", name, head.Count, err)
		}
	}
}

// A full disk leaves a log that verifies as far as it goes, and says so for good.
func TestChainOnFullDisk(t *testing.T) {
	log, _ := writeLog(t)
	for room := 0; room < len(log); room += 97 {
		f := &memFile{room: room}
		c := NewChain(f, testRun)
		var err error
		for _, env := range envelopes(everyEvent()...) {
			if err = c.Handle(env); err != nil {
				f.room = -1 // there is space again: too late
			}
		}
		if !errors.Is(err, errFull) {
			t.Fatalf("room %d: error %v", room, err)
		}
		if err := verify(f.data, c.Head()); err != nil {
			t.Fatalf("room %d: %v", room, err)
		}
		if err := c.Close(); err != nil || !f.closed || !errors.Is(c.Err(), errFull) {
			t.Fatalf("room %d: Close() = %v, Err() = %v", room, err, c.Err())
		}
	}
}

func TestChainSyncs(t *testing.T) {
	f := &memFile{room: -1}
	c := NewChain(f, testRun)
	list := envelopes(RunStarted{}, AgentStarted{}, AgentExited{}, RunFinished{})
	for _, env := range list {
		if err := c.Handle(env); err != nil {
			t.Fatal(err)
		}
	}
	if f.syncs != 0 {
		t.Errorf("%d syncs while the user waits for the run", f.syncs)
	}
	if err := c.Close(); err != nil || f.syncs != 1 || !f.closed {
		t.Errorf("Close() = %v with %d syncs", err, f.syncs)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close() = %v", err)
	}
	if err := c.Handle(list[3]); err == nil {
		t.Error("an event after Close was accepted")
	}
}

func TestChainRefusesForeignEvents(t *testing.T) {
	for name, env := range map[string]Envelope{
		"other run": {Seq: 1, Run: "x", Data: Warning{}},
		"gap":       {Seq: 2, Run: testRun, Data: Warning{}},
	} {
		if err := NewChain(&memFile{room: -1}, testRun).Handle(env); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// forge gives every line of data the hash of the line before it in place of "@", so
// that the fuzzer gets past the hashes, as somebody who rewrites the whole log would.
func forge(data []byte) []byte {
	prev, out := Genesis(testRun).Hash, []byte{}
	for line := range bytes.Lines(data) {
		line = bytes.Replace(line, []byte("@"), []byte(prev), 1)
		out = append(out, line...)
		prev = hash(bytes.TrimSuffix(line, []byte("\n")))
	}
	return out
}

// Claim: only canonical lines that carry each other's hash are accepted.
func FuzzReadChain(f *testing.F) {
	const line = `{"data":{"message":"m"},"kind":"warning","prev":"@","run":"` + testRun + `","seq":%d,"time":"2026-01-01T00:00:00Z"}` + "\n"
	f.Add([]byte(fmt.Sprintf(line+line, 1, 2)))
	f.Add([]byte(fmt.Sprintf(line, 2)))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		data = forge(data)
		var envs []Envelope
		head, err := ReadChain(bytes.NewReader(data), testRun, func(env Envelope) error {
			envs = append(envs, env)
			return nil
		})
		if head.Count != uint64(len(envs)) || head.Count > uint64(bytes.Count(data, []byte("\n"))) {
			t.Fatalf("%d lines, %d envelopes, error %v", head.Count, len(envs), err)
		}
		want, at := Genesis(testRun).Hash, 0
		for i, env := range envs {
			end := at + bytes.IndexByte(data[at:], '\n')
			if env.Seq != uint64(i+1) || env.Run != testRun || !bytes.Contains(data[at:end], []byte(want)) {
				t.Fatalf("line %d accepted: %s", i+1, data[at:end])
			}
			want, at = hash(data[at:end]), end+1
		}
		if head.Hash != want || (err == nil && at != len(data)) {
			t.Fatalf("head %+v, error %v after %d of %d bytes", head, err, at, len(data))
		}
	})
}

// Claim: no change of any stretch of a log passes for the log whose head was kept.
func FuzzTamper(f *testing.F) {
	log, head := writeLog(f)
	f.Add(0, 1, []byte("x"))
	f.Add(len(log)-1, 1, []byte{})
	f.Add(100, 500, []byte("\n"))
	f.Fuzz(func(t *testing.T, at, remove int, insert []byte) {
		at = min(max(at, 0), len(log))
		remove = min(max(remove, 0), len(log)-at)
		changed := bytes.Join([][]byte{log[:at], insert, log[at+remove:]}, nil)
		err := verify(changed, head)
		if same := bytes.Equal(changed, log); same != (err == nil) {
			t.Fatalf("replaced %q by %q: %v", log[at:at+remove], insert, err)
		}
	})
}
