package main

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// dialSpelled dials an address as C programs read it: with one to four parts, decimal, octal or hexadecimal
// (inet_aton(3)).
func dialSpelled(to string) (string, error) {
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		return "", err
	}
	addr, err := aton(host)
	if err != nil {
		return "", err
	}
	return dialTCP(net.JoinHostPort(addr.String(), port))
}

func aton(s string) (netip.Addr, error) {
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, errors.New("more than four parts")
	}
	var n uint64
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 0, 32)
		if err != nil {
			return netip.Addr{}, err
		}
		if i < len(parts)-1 {
			n |= v << (24 - 8*i)
		} else {
			n |= v // the last part fills what is left
		}
	}
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), nil
}
