package engine

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestLoopbackSpec: without the capture the sandbox gets no right to change its network, and a resolver that it can listen on.
func TestLoopbackSpec(t *testing.T) {
	for _, loopback := range []bool{false, true} {
		_, host := Spec{Loopback: loopback, IPv6: true}.config()
		if got := slices.Contains(host.CapAdd, "NET_ADMIN"); got == loopback {
			t.Errorf("loopback %v: capabilities %v", loopback, host.CapAdd)
		}
		for _, m := range host.Mounts {
			if got := strings.HasSuffix(m.Source, ".loopback"); m.Target == "/etc/resolv.conf" && got != loopback {
				t.Errorf("loopback %v: /etc/resolv.conf is %s", loopback, m.Source)
			}
		}
		if got := host.Sysctls["net.ipv4.ip_unprivileged_port_start"] == "0"; got != loopback {
			t.Errorf("loopback %v: sysctls %v", loopback, host.Sysctls)
		}
	}
}

func TestExplain(t *testing.T) {
	for message, want := range map[string]error{
		"no such image": nil,
		"OCI runtime create failed: exec: \"/.agent-sandbox/guest\": stat: no such file":                                       ErrGuestMissing,
		"runc create failed: unable to start container process: unable to apply caps: can't apply capabilities: not permitted": ErrNoAdmin,
		"invalid capability: CAP_NET_ADMIN is not allowed by the administrator":                                                ErrNoAdmin,
	} {
		err := explain("start container", errors.New(message))
		for _, kind := range []error{ErrGuestMissing, ErrNoAdmin} {
			if errors.Is(err, kind) != (kind == want) {
				t.Errorf("%q: is %v: %v", message, kind, errors.Is(err, kind))
			}
		}
	}
}
