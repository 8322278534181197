package main

import (
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"
)

// netlinkOps change the network as the guest set it up. Where they may, they succeed: use them last.
func netlinkOps() map[string]operation {
	plain := func(do func() error) operation {
		return operation{0, func([]string) (string, error) { return "", do() }}
	}
	return map[string]operation{
		"list_links":  plain(func() error { return routeMessage(unix.RTM_GETLINK, unix.NLM_F_DUMP, make([]byte, 16)) }),
		"add_route":   plain(addRoute),
		"flush_route": plain(deleteRoute),
		"lo_down":     plain(loDown),
		"flush_nft":   plain(func() error { return netfilter(unix.NFT_MSG_DELTABLE, nil) }),
		"add_nft":     plain(func() error { return netfilter(unix.NFT_MSG_NEWTABLE, attribute(1, []byte("mine\x00"))) }),
	}
}

// addRoute sends 1.2.3.4 to the loopback interface.
func addRoute() error {
	body := []byte{unix.AF_INET, 32, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_LINK, unix.RTN_UNICAST, 0, 0, 0, 0}
	body = append(body, attribute(unix.RTA_DST, []byte{1, 2, 3, 4})...)
	return routeMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, append(body, attribute(unix.RTA_OIF, index(1))...))
}

// deleteRoute takes away the route by which every address is this host's.
func deleteRoute() error {
	body := []byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, 0, unix.RT_SCOPE_NOWHERE, unix.RTN_LOCAL, 0, 0, 0, 0}
	return routeMessage(unix.RTM_DELROUTE, 0, append(body, attribute(unix.RTA_OIF, index(1))...))
}

func loDown() error {
	body := append([]byte{unix.AF_UNSPEC, 0, 0, 0}, index(1)...)
	body = append(body, 0, 0, 0, 0)            // flags: not up
	body = append(body, index(unix.IFF_UP)...) // the flag that changes
	return routeMessage(unix.RTM_NEWLINK, 0, body)
}

func index(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// netfilter sends one message of nf_tables in the batch that it asks for. No attribute stands for every table.
func netfilter(kind uint16, attributes []byte) error {
	const (
		batchBegin = 0x10
		batchEnd   = 0x11
		nfTables   = unix.NFNL_SUBSYS_NFTABLES
	)
	family := []byte{unix.AF_INET, 0, 0, 0}
	var b []byte
	b = append(b, message(batchBegin, unix.NLM_F_REQUEST, []byte{0, 0, 0, nfTables})...)
	b = append(b, message(nfTables<<8|kind, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE, append(family, attributes...))...)
	b = append(b, message(batchEnd, unix.NLM_F_REQUEST, []byte{0, 0, 0, nfTables})...)
	return exchange(unix.NETLINK_NETFILTER, b)
}

func routeMessage(kind, flags uint16, body []byte) error {
	return exchange(unix.NETLINK_ROUTE, message(kind, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags, body))
}

func attribute(kind uint16, data []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func message(kind, flags uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = append(b, 1, 0, 0, 0, 0, 0, 0, 0) // sequence number, port
	return append(b, body...)
}

// exchange sends messages, and returns the first error among the answers.
func exchange(protocol int, messages []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	wait := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return err
	}
	answers, err := syscall.ParseNetlinkMessage(b[:n])
	if err != nil {
		return err
	}
	for _, a := range answers {
		if a.Header.Type == unix.NLMSG_ERROR && len(a.Data) >= 4 {
			if errno := int32(binary.NativeEndian.Uint32(a.Data)); errno != 0 {
				return syscall.Errno(-errno)
			}
		}
	}
	return nil
}
