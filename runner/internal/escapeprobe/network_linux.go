package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long an attempt waits for what would be an answer from outside.
const patience = 2 * time.Second

func networkOps() map[string]operation {
	one := func(do func(string) (string, error)) operation {
		return operation{1, func(a []string) (string, error) { return do(a[0]) }}
	}
	two := func(do func(_, _ string) (string, error)) operation {
		return operation{2, func(a []string) (string, error) { return do(a[0], a[1]) }}
	}
	return map[string]operation{
		"internet": one(startInternet),
		"serve":    one(serveInternet),
		"tcp":      one(dialTCP),
		"spelled":  one(dialSpelled),
		"udp":      one(sendUDP),
		"ping":     one(ping),
		"lookup":   one(lookup),
		"dns":      two(func(server, name string) (string, error) { return askDNS("udp", server, name) }),
		"dnstcp":   two(func(server, name string) (string, error) { return askDNS("tcp", server, name) }),
		"unix":     one(dialUnix),
		"ownunix":  one(ownUnix),
		"bindtcp":  one(bindTCP),
		"socket":   {3, func(a []string) (string, error) { return "", socket(a) }},
		"mark":     {0, func([]string) (string, error) { return "", withSocket(unix.SOL_SOCKET, unix.SO_MARK) }},
		"transparent": {0, func([]string) (string, error) {
			return "", withSocket(unix.SOL_IP, unix.IP_TRANSPARENT)
		}},
		"interfaces": {0, func([]string) (string, error) { return interfaces() }},
	}
}

// hello is what the pretended internet says, with the address that was dialled.
const hello = "reached "

// startInternet leaves a process behind that answers on these ports, as the whole world would: wherever a dial or a
// datagram arrives in this network namespace, whatever its address.
func startInternet(ports string) (string, error) {
	cmd := exec.Command("/proc/self/exe", childArg, `{"op":"serve","args":["`+ports+`"]}`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	ready, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	b := make([]byte, 256)
	n, _ := ready.Read(b)
	if got := string(b[:n]); got != "ready\n" {
		return got, errors.New("the internet does not answer")
	}
	return "", nil
}

func serveInternet(ports string) (string, error) {
	for port := range strings.SplitSeq(ports, ",") {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return "", err
		}
		go serveTCP(l)
		number, err := strconv.Atoi(port)
		if err != nil {
			return "", err
		}
		// One for each family: a reply has to come from the address that was asked, which takes IP_PKTINFO.
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			fd, err := listenUDP(family, number)
			if err != nil {
				return "", err
			}
			go serveUDP(fd)
		}
	}
	fmt.Fprintln(os.Stderr, "ready")
	time.Sleep(time.Minute)
	return "", nil
}

func serveTCP(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, hello+conn.LocalAddr().String())
		_ = conn.Close()
	}
}

func listenUDP(family, port int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if family == unix.AF_INET {
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1); err != nil {
			return -1, err
		}
		return fd, unix.Bind(fd, &unix.SockaddrInet4{Port: port})
	}
	// Without the last, a reply could not come from an address that no interface has.
	for _, option := range []int{unix.IPV6_V6ONLY, unix.IPV6_RECVPKTINFO, unix.IPV6_FREEBIND} {
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, option, 1); err != nil {
			return -1, err
		}
	}
	return fd, unix.Bind(fd, &unix.SockaddrInet6{Port: port})
}

// serveUDP answers each datagram from the address that it was sent to: the control message of an arrival is the one
// that a reply needs.
func serveUDP(fd int) {
	b, control := make([]byte, 2048), make([]byte, 256)
	for {
		n, oobn, _, from, err := unix.Recvmsg(fd, b, control, 0)
		if err != nil {
			return
		}
		_ = unix.Sendmsg(fd, append([]byte(hello), b[:min(n, 64)]...), clearInterface(control[:oobn]), from, 0)
	}
}

// clearInterface leaves the way of a reply to the routes.
func clearInterface(control []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) == 0 {
		return nil
	}
	switch m := messages[0]; m.Header.Type {
	case unix.IP_PKTINFO: // index, local address, destination
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte(m.Data[8:12])})
	default:
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])})
	}
}

// dialTCP reads what the other end says first: a connection alone could be one to the guest's relay.
func dialTCP(to string) (string, error) {
	conn, err := net.DialTimeout("tcp", to, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return firstWords(conn)
}

func firstWords(conn net.Conn) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	b := make([]byte, 512)
	n, err := conn.Read(b)
	if errors.Is(err, io.EOF) {
		err = syscall.ECONNRESET
	}
	return string(b[:n]), err
}

func sendUDP(to string) (string, error) {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		return "", err
	}
	return firstWords(conn)
}

// ping sends an echo request by a datagram socket, as the ping program does without privileges (icmp(7)).
func ping(to string) (string, error) {
	ip := net.ParseIP(to)
	family, protocol, kind := unix.AF_INET, unix.IPPROTO_ICMP, byte(8)
	var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(append(ip.To4(), 0, 0, 0, 0)[:4])}
	if ip.To4() == nil {
		family, protocol, kind = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
		sa = &unix.SockaddrInet6{Addr: [16]byte(ip)}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); err != nil {
		return "", err
	}
	wait := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return "", err
	}
	if _, err := unix.Write(fd, []byte{kind, 0, 0, 0, 0, 0, 0, 1, 'h', 'i'}); err != nil {
		return "", err
	}
	n, err := unix.Read(fd, make([]byte, 64))
	return fmt.Sprint(n, " bytes"), err
}

// lookup asks the resolvers of resolv.conf for an address.
func lookup(name string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience/2)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, name)
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return "", syscall.ENOENT
	}
	return strings.Join(addrs, " "), err
}

// askDNS sends a question for a TXT record, which is what tunnels use, and reports the answer's code.
func askDNS(network, server, name string) (string, error) {
	conn, err := net.DialTimeout(network, server, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	question := append([]byte{0x13, 0x37, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, labels(name)...)
	question = append(question, 0, 16, 0, 1)
	if network == "tcp" {
		question = append(binary.BigEndian.AppendUint16(nil, uint16(len(question))), question...)
	}
	if _, err := conn.Write(question); err != nil {
		return "", err
	}
	reply, err := firstWords(conn)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(reply, hello) {
		return reply[:len(hello)], nil
	}
	if len(reply) < 12 {
		return "", errors.New("a short answer")
	}
	const nameError = 3
	if code := reply[3] & 0xf; code != nameError {
		return fmt.Sprintf("code %d", code), nil
	}
	return "NXDOMAIN", syscall.ENOENT
}

func labels(name string) []byte {
	var b []byte
	for label := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0)
}

// dialUnix connects to a Unix socket; a leading "@" stands for the abstract namespace.
func dialUnix(path string) (string, error) {
	conn, err := net.DialTimeout("unix", path, patience)
	if err != nil {
		return "", err
	}
	return "", conn.Close()
}

// ownUnix connects to a socket of its own.
func ownUnix(path string) (string, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return "", err
	}
	defer l.Close()
	return dialUnix(path)
}

func bindTCP(to string) (string, error) {
	l, err := net.Listen("tcp", to)
	if err != nil {
		return "", err
	}
	return "", l.Close()
}

// socket takes numbers: family, type, protocol.
func socket(a []string) error {
	var n [3]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(a[i]); err != nil {
			return err
		}
	}
	fd, err := unix.Socket(n[0], n[1], n[2])
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func withSocket(level, option int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, level, option, 1)
}

func interfaces() (string, error) {
	all, err := net.Interfaces()
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return strings.Join(names, " "), err
}
