// Package splice takes what a TCP connection has received to another socket without reading it (splice(2)): the kernel passes the
// pages on through a pipe. It looks at nothing, so it is only for bytes that have been decided about, and it never sends more
// than its caller asks for.
//
// It is an attempt: what can't be taken so is for the caller to read and write, as where the system has nothing of the kind.
//
// Only for sending over the kernel's own sockets is it worth it: a TCP connection on loopback takes spliced pages more slowly than copies.
package splice

import (
	"net"
	"syscall"
)

// Socket is what bytes can be sent on. Its Socket is nil where there is none, or something lies between, such as a multiplexer.
type Socket interface{ Socket() syscall.RawConn }

// Source is what bytes can be taken from: the socket of a TCP connection, or nil if conn is something else, such as TLS.
func Source(conn net.Conn) syscall.RawConn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// Target is what bytes can be sent on, or nil.
func Target(conn net.Conn) syscall.RawConn {
	s, ok := conn.(Socket)
	if !ok {
		return nil
	}
	return s.Socket()
}
