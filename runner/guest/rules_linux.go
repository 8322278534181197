package guest

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The netfilter virtual machine's registers: 1 and 2 are all that these rules need (nft(8), libnftnl).
const register = 1

// destination matches packets to an address of prefix.
func destination(prefix netip.Prefix) []expr.Any {
	offset, size := uint32(16), uint32(4) // RFC 791, section 3.1
	if prefix.Addr().Is6() {
		offset, size = 24, 16 // RFC 8200, section 3
	}
	mask := make([]byte, size)
	for i := range prefix.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: size, Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: prefix.Masked().Addr().AsSlice()},
	}
}

// protocol matches packets of a transport protocol.
func protocol(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{number}},
	}
}

// destinationPort matches TCP and UDP packets to port; it must follow protocol.
func destinationPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

// redirectTo sends the connection to a port of this host's loopback address.
func redirectTo(port int) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register, Data: binaryutil.BigEndian.PutUint16(uint16(port))},
		&expr.Redir{RegisterProtoMin: register},
	}
}

// logTo copies packets to a netfilter log group: all of them, for what a limit leaves out is not counted anywhere.
func logTo(group uint16) []expr.Any {
	return []expr.Any{
		&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN, Group: group, Snaplen: snapLen},
	}
}

// refuse answers as a host without a listener would, so that the sender knows at once.
func refuse(family nftables.TableFamily) []expr.Any {
	const (
		portUnreachable4 = 3 // RFC 792
		portUnreachable6 = 4 // RFC 4443, section 3.1
	)
	code := uint8(portUnreachable4)
	if family == nftables.TableFamilyIPv6 {
		code = portUnreachable6
	}
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}}
}
