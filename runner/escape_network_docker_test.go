//go:build docker

package runner

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
)

// internetPorts are where a process beside the attacks answers, whatever address is dialled. The network of a sandbox
// takes every address for its own; it is the guest's rules alone that lead dials to the relay and not there.
const internetPorts = "22,53,80,443,853,2375,3128,8080"

// noRules is a sandbox whose guest installs no netfilter rules.
const noRules = "no rules"

// noCapture is one whose guest does not touch the network at all.
const noCapture = "no capture"

// capabilities is one in which the agent is root, has all capabilities and no filter.
const capabilities = "capabilities"

// hostNetwork is a sandbox in the network of the engine's host, where the guest does nothing to it.
const hostNetwork = "host network"

func networkSetups() []setup {
	return []setup{
		weak(noRules, "", []string{"rules"}, engine.Weakened{}),
		weak(hostNetwork, "", []string{"capture"}, engine.Weakened{HostNetwork: true}),
		weak(noCapture, "", []string{"capture"}, engine.Weakened{}),
		weak(capabilities, "user: root\n", []string{"capabilities", "guard"}, engine.Weakened{Capabilities: true, Unconfined: true}),
	}
}

func TestEscapeNetwork(t *testing.T) {
	l := testLab(t)
	l.run(t, "network", networkAttacks(l.hostServices(t)), networkSetups())
}

func networkAttacks(host hostServices) []attack {
	var all []attack
	all = append(all, dials()...)
	all = append(all, datagrams()...)
	all = append(all, names()...)
	all = append(all, hostAttacks(host)...)
	all = append(all, captureAttacks()...)
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		for i := range all {
			if len(all[i].args) > 0 && strings.Count(all[i].args[0], ":") > 1 {
				all[i].skip = "the kernel has no IPv6"
			}
		}
	}
	return all
}

// dials are TCP connections to addresses, each by a route of its own out of a careless sandbox.
func dials() []attack {
	var all []attack
	for _, d := range []struct{ name, to string }{
		{"literal IPv4", "8.8.8.8:443"},
		{"literal IPv4, odd port", "140.82.114.22:8080"},
		{"literal IPv6", "[2606:4700::1111]:443"},
		{"ssh", "140.82.114.22:22"},
		{"plain http", "93.184.216.34:80"},
		{"another proxy", "203.0.113.7:3128"},
		{"metadata of AWS, GCP and Azure", "169.254.169.254:80"},
		{"metadata of AWS by IPv6", "[fd00:ec2::254]:80"},
		{"metadata of Alibaba", "100.100.100.200:80"},
		{"metadata of Oracle", "192.0.0.192:80"},
		{"Azure's wire server", "168.63.129.16:80"},
		{"link-local IPv6", "[fe80::a9fe:a9fe%lo]:80"},
		{"RFC 1918, 10/8", "10.0.0.1:443"},
		{"RFC 1918, 172.16/12", "172.16.0.1:443"},
		{"RFC 1918, 192.168/16", "192.168.1.1:80"},
		{"CGNAT", "100.64.0.1:443"},
		{"198.18/15", "198.18.0.1:443"},
		{"unique local IPv6", "[fd12:3456::1]:443"},
		{"IPv4-mapped IPv6", "[::ffff:8.8.4.4]:443"},
		{"NAT64", "[64:ff9b::808:808]:443"},
		{"6to4", "[2002:808:808::1]:443"},
		{"the docker bridge's gateway", "172.17.0.1:2375"},
		{"a reserved address", "240.0.0.1:80"},
		{"DNS over TCP", "9.9.9.9:53"},
		{"DNS over TLS", "9.9.9.9:853"},
		{"DNS over HTTPS", "1.1.1.1:443"},
	} {
		to := netip.MustParseAddrPort(d.to)
		all = append(all, attack{
			name: "TCP, " + d.name, op: "tcp", args: []string{d.to}, refused: refusals("ECONNRESET"), by: "redirect to the relay",
			control: "control: loopback", off: noRules,
			recorded: refusedConnection("tcp", to),
		})
	}
	for _, d := range []struct{ name, to, means string }{
		{"octal address", "010.010.04.04:8080", "8.8.4.4:8080"},
		{"hexadecimal address", "0x01000001:8080", "1.0.0.1:8080"},
		{"decimal address", "2852039166:8080", "169.254.169.254:8080"},
		{"address of two parts", "10.258:8080", "10.0.1.2:8080"},
	} {
		all = append(all, attack{
			name: "TCP, " + d.name, op: "spelled", args: []string{d.to}, refused: refusals("ECONNRESET"), by: "redirect to the relay",
			control: "control: loopback", off: noRules, recorded: refusedConnection("tcp", netip.MustParseAddrPort(d.means)),
		})
	}
	return all
}

func refusedConnection(proto string, to netip.AddrPort) func(event.Event) bool {
	return func(e event.Event) bool {
		c, ok := e.(event.ConnectionRefused)
		return ok && c.Proto == proto && c.Address == to.Addr().Unmap().WithZone("").String() && c.Port == to.Port()
	}
}

// datagrams are packets that aren't TCP's.
func datagrams() []attack {
	var all []attack
	for _, d := range []struct{ name, to string }{
		{"UDP", "8.8.8.8:8080"},
		{"UDP, IPv6", "[2606:4700::1111]:8080"},
		{"QUIC", "142.250.74.68:443"},
		{"QUIC, IPv6", "[2a00:1450::2004]:443"},
		{"UDP, multicast", "224.0.0.251:853"},
		{"UDP, metadata", "169.254.169.254:80"},
		{"UDP, the docker bridge's gateway", "172.17.0.1:2375"},
	} {
		all = append(all, attack{
			name: d.name, op: "udp", args: []string{d.to}, refused: refusals("EPERM", "ECONNREFUSED", "EACCES"), by: "rejecting what is not TCP",
			control: "control: loopback udp", off: noRules,
			recorded: refusedConnection("udp", netip.MustParseAddrPort(d.to)),
		})
	}
	for _, to := range []string{"8.8.8.8", "2606:4700::1111"} {
		all = append(all, attack{
			name: "ICMP echo to " + to, op: "ping", args: []string{to}, refused: refusals("EPERM", "ECONNREFUSED"), by: "rejecting what is not TCP",
			control: "control: loopback udp", off: noRules,
			recorded: refusedConnection("icmp", netip.AddrPortFrom(netip.MustParseAddr(to), 0)),
		})
	}
	// Multicast is answered from no address of its own, so that it is only the record that tells.
	for i := range all {
		if strings.Contains(all[i].name, "multicast") {
			all[i].unrecorded = true
		}
	}
	return all
}

// names are questions for addresses.
func names() []attack {
	tunnel := strings.Repeat("6461746121", 6) + "." + strings.Repeat("7365637265", 6) + ".tunnel.example"
	question := func(name, op string, args ...string) attack {
		return attack{
			name: name, op: op, args: args, refused: refusals("ENOENT"), by: "a resolver that asks nobody", control: "control: loopback udp", off: noRules,
			recorded: refusedName(args[len(args)-1]),
		}
	}
	all := []attack{
		question("DNS, by the sandbox's resolver", "dns", "192.0.2.53:53", "denied.example"),
		question("DNS, by a public resolver", "dns", "8.8.8.8:53", "elsewhere.example"),
		question("DNS, by a public resolver and IPv6", "dns", "[2001:4860:4860::8888]:53", "elsewhere6.example"),
		question("DNS, data in the labels", "dns", "192.0.2.53:53", tunnel),
		question("DNS, upper case", "dns", "192.0.2.53:53", "UPPER.Example"),
	}
	for _, name := range []string{"host.docker.internal", "gateway.docker.internal", "metadata.google.internal", "localhost.localdomain", "trailing.example."} {
		a := question("look-up of "+name, "lookup", name)
		// The pretended internet's answer is no message, which libraries report in their own ways.
		a.unrecorded = true
		all = append(all, a)
	}
	return all
}

func refusedName(name string) func(event.Event) bool {
	return func(e event.Event) bool {
		n, ok := e.(event.NameRefused)
		return ok && n.Name == strings.ToLower(strings.TrimSuffix(name, "."))
	}
}
