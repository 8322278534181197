package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
)

// TestShowWithoutCapture: neither the plan nor the record of a run without the capture claims that dials are seen.
func TestShowWithoutCapture(t *testing.T) {
	const claim, says = "captured", "all else fails unrecorded"
	for _, fallback := range []bool{false, true} {
		low := event.Lowered{What: "network", Why: "no capture", Mend: "use another engine"}
		s := event.Summary{Measured: &event.GuestMeasured{Interfaces: []string{"lo"}, Network: event.Capture{TCP: !fallback, Listeners: fallback}}}
		plan := runner.Plan{
			Network:   runner.NetworkPlan{Mode: "none", Capture: !fallback},
			Container: engine.Spec{Mounts: []engine.Mount{{Target: "/workspace"}}},
		}
		if fallback {
			s.Lowered, s.Counts.Lowered = []event.Lowered{low}, 1
			plan.Network.Fallback, plan.Lowered = "no rules", s.Lowered
		}
		shown := newPage(painter(false))
		shown.measured(s.Measured)
		shown.events(s)
		var planned bytes.Buffer
		if err := printPlan(&planned, &plan); err != nil {
			t.Fatal(err)
		}
		if text := shown.String(); strings.Contains(text, says) != fallback || strings.Contains(text, "TCP "+claim+" true") == fallback || strings.Contains(text, "network: no capture") != fallback {
			t.Errorf("fallback %v: show says\n%s", fallback, text)
		}
		if text := planned.String(); strings.Contains(text, says) != fallback || strings.Contains(text, "decides every dial") == fallback || strings.Contains(text, "no capture") != fallback {
			t.Errorf("fallback %v: the plan says\n%s", fallback, text)
		}
	}
}
