package runner

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/link"
)

// uncapturedError tells that the sandbox's network can't be captured, which is more than one that went wrong: another try
// without would do.
type uncapturedError struct{ why string }

func (e *uncapturedError) Error() string { return "outgoing connections can't be captured: " + e.why }

// uncaptured is why the network could not be captured, empty if err is about something else.
func uncaptured(err error) string {
	var no *uncapturedError
	switch {
	case errors.As(err, &no):
		return no.why
	case errors.Is(err, engine.ErrNoAdmin):
		return engine.ErrNoAdmin.Error()
	}
	return ""
}

// knownUncapturable is about engines of which it is known beforehand.
func (r *run) knownUncapturable(f engine.Facts) error {
	if runtime := f.Runtime; strings.HasPrefix(runtime, "runsc") {
		return r.fallBack(fmt.Sprintf("the engine's runtime is gVisor (%s), which has no netfilter rules for it", runtime))
	}
	return nil
}

// insteadOf gives up a sandbox whose capture turned out not to work, if the policy takes one without. Otherwise verify
// refuses it, with all else that is wrong.
func (r *run) insteadOf(m *link.Measurement) error {
	if m.Network.Capture || !r.plan.Network.Capture || r.cfg.Policy.Network.Capture != policy.CaptureAuto {
		return nil
	}
	return &uncapturedError{strings.Join(m.Network.Reasons, ", ")}
}

// startUncaptured tries once more, without the capture.
func (r *run) startUncaptured(ctx context.Context, why string) (*sandbox, error) {
	if err := r.fallBack(why); err != nil {
		return nil, err
	}
	return r.start(ctx, false)
}

const (
	fallbackLoss = "dials to addresses fail, also to those that the policy names, and so do other ports of allowed names, UDP and ICMP, " +
		"but nobody sees or records it; names lead to loopback addresses, which some agents refuse to call"
	fallbackMend = "use an engine with nftables that grants CAP_NET_ADMIN"
)

// fallBack goes on without the capture if the policy takes that, and says what is lost.
func (r *run) fallBack(why string) error {
	if r.cfg.Policy.Network.Capture != policy.CaptureAuto {
		return &RefusedError{
			Reason: (&uncapturedError{why}).Error(),
			Hint:   fallbackMend + ", or say `network: {capture: auto}` in the policy: then " + fallbackLoss,
		}
	}
	r.fallback = why
	r.gateway.UseLoopback()
	r.lower("network", "no capture ("+why+"): "+fallbackLoss, fallbackMend)
	for _, rule := range r.expanded.Network.Allow {
		if len(firstPorts(rule.Ports, link.MaxPorts+1)) > link.MaxPorts {
			r.warn(fmt.Sprintf("network.allow: %s has more than %d ports: without the capture the others can't be reached", rule.Host, link.MaxPorts))
		}
	}
	if r.plan == nil {
		return nil // it will know
	}
	r.plan.Lowered = r.lowered
	return r.planNetwork(r.plan)
}

// resolver is where the resolver has to listen; zero where questions are captured.
func (p *Plan) resolver() netip.AddrPort {
	if p.Network.Fallback == "" {
		return netip.AddrPort{}
	}
	const port = 53 // RFC 1035, section 4.2.1
	return netip.AddrPortFrom(netip.MustParseAddr(engine.LoopbackResolver), port)
}
