package main

import (
	"slices"

	"golang.org/x/sys/unix"
)

// socket is an address family, type and protocol, and the answer under the strict profile.
type socket struct {
	name               string
	family, typ, proto int
	strict             string
}

func sockets() []attempt {
	var all []attempt
	for _, s := range slices.Concat(foreignSockets(), usefulSockets()) {
		all = append(all, attempt{"socket " + s.name, []string{s.strict}, func() (string, error) {
			fd, err := unix.Socket(s.family, s.typ, s.proto)
			if err != nil {
				return "", err
			}
			return "", unix.Close(fd)
		}})
	}
	return append(all, pair("AF_VSOCK", unix.AF_VSOCK, "EPERM"), pair("AF_PACKET", unix.AF_PACKET, "EPERM"),
		pair("AF_INET", unix.AF_INET, "EPERM"), pair("AF_UNIX", unix.AF_UNIX, "ok"))
}

// foreignSockets are those that the profile denies. A family that the kernel of the engine does not have answers
// the same with and without a filter, so the list is long enough to be sure of some.
func foreignSockets() []socket {
	const (
		ipprotoSMC   = 256
		ipprotoMPTCP = 262
		ipprotoSCTP  = 132
		ipprotoDCCP  = 33
		ipprotoL2TP  = 115
		ipprotoLite  = 136
		sockDCCP     = 6
		sockPacket   = 10
	)
	return []socket{
		{"AF_UNSPEC", unix.AF_UNSPEC, unix.SOCK_STREAM, 0, "EPERM"},
		{"AF_AX25", unix.AF_AX25, unix.SOCK_SEQPACKET, 0, "EAFNOSUPPORT"},
		{"AF_BRIDGE", unix.AF_BRIDGE, unix.SOCK_STREAM, 0, "EAFNOSUPPORT"},
		{"AF_X25", unix.AF_X25, unix.SOCK_SEQPACKET, 0, "EAFNOSUPPORT"},
		{"AF_KEY", unix.AF_KEY, unix.SOCK_RAW, 2, "EAFNOSUPPORT"},
		{"AF_PACKET", unix.AF_PACKET, unix.SOCK_RAW, 0, "EAFNOSUPPORT"},
		{"AF_RDS", unix.AF_RDS, unix.SOCK_SEQPACKET, 0, "EAFNOSUPPORT"},
		{"AF_CAN", unix.AF_CAN, unix.SOCK_RAW, 1, "EAFNOSUPPORT"},
		{"AF_TIPC", unix.AF_TIPC, unix.SOCK_STREAM, 0, "EAFNOSUPPORT"},
		{"AF_BLUETOOTH", unix.AF_BLUETOOTH, unix.SOCK_RAW, 1, "EAFNOSUPPORT"},
		{"AF_ALG", unix.AF_ALG, unix.SOCK_SEQPACKET, 0, "EAFNOSUPPORT"},
		{"AF_NFC", unix.AF_NFC, unix.SOCK_SEQPACKET, 0, "EAFNOSUPPORT"},
		{"AF_VSOCK", unix.AF_VSOCK, unix.SOCK_STREAM, 0, "EAFNOSUPPORT"},
		{"AF_KCM", unix.AF_KCM, unix.SOCK_DGRAM, 0, "EAFNOSUPPORT"},
		{"AF_QIPCRTR", unix.AF_QIPCRTR, unix.SOCK_DGRAM, 0, "EAFNOSUPPORT"},
		{"AF_SMC", unix.AF_SMC, unix.SOCK_STREAM, 0, "EAFNOSUPPORT"},
		{"AF_XDP", unix.AF_XDP, unix.SOCK_RAW, 0, "EAFNOSUPPORT"},
		{"AF_MCTP", unix.AF_MCTP, unix.SOCK_DGRAM, 0, "EAFNOSUPPORT"},
		{"NETLINK_AUDIT", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT, "EPROTONOSUPPORT"},
		{"NETLINK_SOCK_DIAG", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG, "EPERM"},
		{"NETLINK_XFRM", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM, "EPERM"},
		{"NETLINK_KOBJECT_UEVENT", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT, "EPERM"},
		{"NETLINK_GENERIC", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC, "EPERM"},
		{"AF_INET raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP, "EPERM"},
		{"AF_INET6 raw", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, "EPERM"},
		{"AF_INET SOCK_PACKET", unix.AF_INET, sockPacket, 0, "EPERM"},
		{"AF_INET MPTCP", unix.AF_INET, unix.SOCK_STREAM, ipprotoMPTCP, "EPERM"},
		{"AF_INET6 MPTCP", unix.AF_INET6, unix.SOCK_STREAM, ipprotoMPTCP, "EPERM"},
		{"AF_INET SCTP", unix.AF_INET, unix.SOCK_STREAM, ipprotoSCTP, "EPERM"},
		{"AF_INET SCTP by type", unix.AF_INET, unix.SOCK_SEQPACKET, 0, "EPERM"},
		{"AF_INET DCCP", unix.AF_INET, sockDCCP, ipprotoDCCP, "EPERM"},
		{"AF_INET SMC", unix.AF_INET, unix.SOCK_STREAM, ipprotoSMC, "EPERM"},
		{"AF_INET L2TP", unix.AF_INET, unix.SOCK_DGRAM, ipprotoL2TP, "EPERM"},
		{"AF_INET UDP-Lite", unix.AF_INET, unix.SOCK_DGRAM, ipprotoLite, "EPERM"},
	}
}

func usefulSockets() []socket {
	return []socket{
		{"AF_UNIX stream", unix.AF_UNIX, unix.SOCK_STREAM, 0, "ok"},
		{"AF_UNIX seqpacket", unix.AF_UNIX, unix.SOCK_SEQPACKET | unix.SOCK_CLOEXEC, 0, "ok"},
		{"AF_INET TCP", unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC, unix.IPPROTO_TCP, "ok"},
		{"AF_INET TCP by default", unix.AF_INET, unix.SOCK_STREAM, 0, "ok"},
		{"AF_INET UDP", unix.AF_INET, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC, unix.IPPROTO_UDP, "ok"},
		{"AF_INET6 TCP", unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP, "ok"},
		{"AF_INET6 UDP", unix.AF_INET6, unix.SOCK_DGRAM, 0, "ok"},
		{"NETLINK_ROUTE", unix.AF_NETLINK, unix.SOCK_RAW | unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE, "ok"},
		{"NETLINK_NETFILTER", unix.AF_NETLINK, unix.SOCK_RAW | unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER, "ok"},
	}
}

func pair(name string, family int, strict string) attempt {
	return attempt{"socketpair " + name, []string{strict}, func() (string, error) {
		_, err := unix.Socketpair(family, unix.SOCK_STREAM, 0)
		return "", err
	}}
}
