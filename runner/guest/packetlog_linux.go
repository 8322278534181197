package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

// snapLen is how many bytes of a refused packet are looked at: an IPv6 header and the ports.
const snapLen = 64

// From linux/netfilter/nfnetlink_log.h; x/sys has none of them.
const (
	nflogMsgConfig  = 1  // NFULNL_MSG_CONFIG
	nflogCmdBind    = 1  // NFULNL_CFG_CMD_BIND
	nflogCopyPacket = 2  // NFULNL_COPY_PACKET
	nflogCfgCmd     = 1  // NFULA_CFG_CMD
	nflogCfgMode    = 2  // NFULA_CFG_MODE
	nflogCfgQThresh = 5  // NFULA_CFG_QTHRESH
	nflogCfgFlags   = 6  // NFULA_CFG_FLAGS
	nflogFlagSeq    = 1  // NFULNL_CFG_F_SEQ
	nflogPayload    = 9  // NFULA_PAYLOAD
	nflogSeq        = 12 // NFULA_SEQ
)

// packetLog receives copies of refused packets from the kernel (nfnetlink_log, linux/netfilter/nfnetlink_log.h).
type packetLog struct {
	conn *netlink.Conn
	next uint32 // the number that the next report will have
}

// newPacketLog subscribes to a netfilter log group of this network namespace. It needs CAP_NET_ADMIN, later reads don't.
func newPacketLog(group uint16) (*packetLog, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("netfilter log: %w", err)
	}
	mode := make([]byte, 6) // struct nfulnl_msg_config_mode: copy_range, copy_mode, padding
	binary.BigEndian.PutUint32(mode, snapLen)
	mode[4] = nflogCopyPacket
	for _, attr := range []netlink.Attribute{
		{Type: nflogCfgCmd, Data: []byte{nflogCmdBind}},
		{Type: nflogCfgMode, Data: mode},
		// Report each packet at once instead of collecting up to a hundred.
		{Type: nflogCfgQThresh, Data: binary.BigEndian.AppendUint32(nil, 1)},
		// Number the reports, so that those are counted which a full socket has no room for.
		{Type: nflogCfgFlags, Data: binary.BigEndian.AppendUint16(nil, nflogFlagSeq)},
	} {
		if err := configureLog(conn, group, attr); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return &packetLog{conn: conn}, nil
}

func configureLog(conn *netlink.Conn, group uint16, attr netlink.Attribute) error {
	data, err := netlink.MarshalAttributes([]netlink.Attribute{attr})
	if err != nil {
		return fmt.Errorf("netfilter log: %w", err)
	}
	// struct nfgenmsg: family, version, resource id (the group, big endian).
	head := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, byte(group >> 8), byte(group)}
	_, err = conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_ULOG<<8 | nflogMsgConfig,
			Flags: netlink.Request | netlink.Acknowledge,
		},
		Data: append(head, data...),
	})
	if err != nil {
		return fmt.Errorf("netfilter log: configure: %w", err)
	}
	return nil
}

// Receive waits for the next refused packets. lost is how many were refused before them without a report: a flood has
// filled the socket, or a packet is too short to be read.
func (l *packetLog) Receive() (refused []link.Refused, lost uint64, err error) {
	msgs, err := l.conn.Receive()
	if errors.Is(err, unix.ENOBUFS) {
		return nil, 0, nil // the numbers will tell how many
	}
	if err != nil {
		return nil, 0, err
	}
	for _, m := range msgs {
		r, seq, ok := parseLogged(m.Data)
		lost += uint64(seq - l.next) // in 32 bits, which wrap around
		l.next = seq + 1
		if ok {
			refused = append(refused, r)
		} else {
			lost++
		}
	}
	return refused, lost, nil
}

// Close ends the subscription.
func (l *packetLog) Close() error { return l.conn.Close() }

func parseLogged(data []byte) (r link.Refused, seq uint32, ok bool) {
	if len(data) < 4 {
		return r, 0, false
	}
	ad, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return r, 0, false
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case nflogPayload:
			r, ok = parsePacket(ad.Bytes())
		case nflogSeq:
			seq = ad.Uint32()
		}
	}
	return r, seq, ok
}

// parsePacket reads destination and protocol from the start of an IP packet (RFC 791, RFC 8200). An IPv6 extension
// header is reported as its own protocol number: what matters is that the packet was refused.
func parsePacket(p []byte) (link.Refused, bool) {
	var (
		proto   byte
		dst     netip.Addr
		payload []byte
	)
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		headerLen := int(p[0]&0xf) * 4
		proto, dst = p[9], netip.AddrFrom4([4]byte(p[16:20]))
		payload = p[min(headerLen, len(p)):]
	case len(p) >= 40 && p[0]>>4 == 6:
		proto, dst = p[6], netip.AddrFrom16([16]byte(p[24:40]))
		payload = p[40:]
	default:
		return link.Refused{}, false
	}
	r := link.Refused{Proto: protocolName(proto)}
	var port uint16
	if proto == unix.IPPROTO_UDP && len(payload) >= 4 {
		port = binary.BigEndian.Uint16(payload[2:4])
	}
	r.Addr = netip.AddrPortFrom(dst, port)
	return r, true
}

func protocolName(number byte) string {
	switch number {
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return "icmp"
	default:
		return strconv.Itoa(int(number))
	}
}
