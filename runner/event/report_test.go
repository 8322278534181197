package event

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

func finished(o Outcome, code int, reason string) RunFinished {
	return RunFinished{Outcome: o, ExitCode: code, Reason: reason, Duration: 12345 * time.Millisecond}
}

func TestReport(t *testing.T) {
	hostile := "\x1b[2J\u202e\n" + strings.Repeat("A", 1<<16)
	many := []Event{}
	for i := range 40 {
		host := fmt.Sprintf("10.0.0.%d", i)
		many = append(many, ConnectionRefused{Proto: "tcp", Address: host, Port: 443, Reason: "no", Add: host, Count: uint64(i + 1)})
		many = append(many, Connection{ID: uint64(i + 1), Name: fmt.Sprintf("%d.example", i), Port: 443, Outcome: ConnectionAllowed, Up: int64(i), Count: 1})
		many = append(many, ProtectedTouched{Path: fmt.Sprintf(".github/workflows/%d.yml", i), Tier: "warn", Reason: "runs in CI"})
	}
	var b bytes.Buffer
	for _, tt := range []struct {
		name   string
		events []Event
	}{
		{"success, nothing to say", []Event{ChangesExtracted{}, finished(Success, 0, "")}},
		{"success with changes", []Event{ChangesExtracted{Added: 3, Modified: 1, Renamed: 1, Mode: 2}, finished(Success, 0, "")}},
		{"failure", []Event{AgentExited{Code: 3, Reason: Exited}, ChangesExtracted{Deleted: 1}, finished(Failure, 3, "")}},
		{"signal", []Event{AgentExited{Code: 139, Signal: "SIGSEGV", Reason: Signalled}, finished(Failure, 139, "")}},
		{"timeout", []Event{finished(Timeout, 124, "the limit is 30m")}},
		{"cancelled", []Event{finished(Cancelled, 130, "interrupt")}},
		{"refused", []Event{finished(Refused, 125, "seccomp is not available")}},
		{"error", []Event{finished(Errored, 125, "the engine went away")}},
		{"interrupted", []Event{finished(Interrupted, 125, "the runner died")}},
		{"running", []Event{RunStarted{}, AgentStarted{}}},
		{"a name", []Event{
			NameRefused{Name: "evil.example", Type: "A", Count: 2},
			NameRefused{Name: "evil.example", Type: "MX", Count: 1},
			NameRefused{Name: "evil.example", Type: "AAAA", Count: 2},
			finished(Success, 0, ""),
		}},
		{"everything", everyEvent()},
		{"many", append(many, finished(Success, 0, ""))},
		{"hostile", []Event{
			ConnectionRefused{Proto: hostile, Address: hostile, Port: 1, Name: hostile, Reason: hostile, Count: 1},
			NameRefused{Name: hostile, Type: hostile, Count: 2},
			Connection{ID: 1, Name: hostile, Outcome: ConnectionFailed, Reason: hostile, Count: 1},
			ConnectionRefused{Address: "a", Add: "\x1b[2J\n- evil.example", Count: 1},
			ProtectedTouched{Path: hostile, Tier: hostile, Reason: hostile},
			OutputTruncated{Stream: hostile},
			AgentExited{Signal: hostile},
			finished(Failure, 1, hostile),
		}},
	} {
		fmt.Fprintf(&b, "== %s\n%s", tt.name, foldAll(tt.events...).Report(false))
	}
	for _, c := range b.Bytes() {
		if c != '\n' && (c < ' ' || c >= 0x7f) {
			t.Fatalf("byte %#x in a plain report", c)
		}
	}
	golden(t, "report.txt", b.Bytes())
}

func TestReportColor(t *testing.T) {
	golden(t, "report-color.txt", []byte(foldAll(everyEvent()...).Report(true)))
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 250 * time.Millisecond: "250ms", 12345 * time.Millisecond: "12.3s", 72 * time.Second: "1m12s", 2*time.Hour + 3*time.Second: "2h0m3s",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%d) = %q, want %q", d, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1 << 20: "1.0 MiB", 1 << 62: "4.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

// A verdict is the report without its last lines, which name commands for where the record is.
func TestVerdict(t *testing.T) {
	s := foldAll(everyEvent()...)
	verdict := s.Verdict(false)
	if rest, ok := strings.CutPrefix(s.Report(false), verdict); !ok || !strings.Contains(rest, "agent-sandbox diff "+s.Run) {
		t.Errorf("report:\n%s\nverdict:\n%s", s.Report(false), verdict)
	}
	if strings.Contains(verdict, "agent-sandbox diff") || strings.Contains(verdict, "agent-sandbox apply") {
		t.Errorf("verdict:\n%s", verdict)
	}
}
