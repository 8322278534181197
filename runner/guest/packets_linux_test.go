package guest

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/runner/link"
)

// reported collects what a tally sends.
func reported(t *testing.T, tl *tally) (all []string) {
	t.Helper()
	err := tl.report(func(f link.Frame) error {
		all = append(all, fmt.Sprintf("%s %v %d", f.Refused.Proto, f.Refused.Addr, f.Refused.Count))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func to(n int) link.Refused {
	return link.Refused{Proto: "udp", Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 53)}
}

func TestTally(t *testing.T) {
	var tl tally
	tl.add(nil, 0)
	if !tl.due.IsZero() || tl.isDue() {
		t.Error("nothing to report, and it is due")
	}
	tl.add([]link.Refused{to(1), to(2), to(1)}, 0)
	tl.add([]link.Refused{to(1)}, 7)
	if tl.due.IsZero() {
		t.Error("there is something to report, and it is never due")
	}
	if diff := cmp.Diff([]string{"udp 10.0.0.1:53 3", "udp 10.0.0.2:53 1", " invalid AddrPort 7"}, reported(t, &tl)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if again := reported(t, &tl); len(again) > 0 || !tl.due.IsZero() {
		t.Errorf("reported twice: %q", again)
	}
}

// A flood of targets takes bounded memory, and all of it is counted.
func TestTallyIsBounded(t *testing.T) {
	var tl tally
	for n := range 10 * tallyTargets {
		tl.add([]link.Refused{to(n), to(0)}, 0)
	}
	if len(tl.count) != tallyTargets || tl.unlisted != 9*tallyTargets || tl.count[to(0)] != 10*tallyTargets+1 {
		t.Errorf("%d targets, %d unlisted, %d to the first", len(tl.count), tl.unlisted, tl.count[to(0)])
	}
}
