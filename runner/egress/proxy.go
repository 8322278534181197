package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/org/agent-sandbox/policy"
)

// Proxy holds the values of the runner's HTTPS_PROXY, HTTP_PROXY and NO_PROXY, with the meaning that they have for Go programs.
// The first is for TLS, the second for connections to port 80; both are asked with CONNECT. They may hold a
// password, which goes to the proxy and nowhere else.
//
// The proxy looks the names up, so the addresses are its operator's to check. Entries with `to`, `private: true` or `tcp: true`, and
// those that name an address of a local network, never go through it.
type Proxy struct{ HTTPS, HTTP, No string }

// maxProxyAnswer bounds the head of the proxy's answer in bytes.
const maxProxyAnswer = 64 << 10

// upstreamProxy opens connections through the company's proxy.
type upstreamProxy struct {
	find  func(*url.URL) (*url.URL, error)
	roots *x509.CertPool
}

// isTLS tells whether a proxy is spoken to over TLS.
func (p Proxy) isTLS() bool {
	return strings.HasPrefix(strings.ToLower(p.HTTPS), "https:") || strings.HasPrefix(strings.ToLower(p.HTTP), "https:")
}

func newUpstreamProxy(p Proxy, roots *x509.CertPool) (*upstreamProxy, error) {
	if err := checkProxy(p.HTTPS); err != nil {
		return nil, fmt.Errorf("egress: HTTPS_PROXY: %w", err)
	}
	if err := checkProxy(p.HTTP); err != nil {
		return nil, fmt.Errorf("egress: HTTP_PROXY: %w", err)
	}
	config := httpproxy.Config{HTTPSProxy: p.HTTPS, HTTPProxy: p.HTTP, NoProxy: p.No}
	return &upstreamProxy{config.ProxyFunc(), roots}, nil
}

// checkProxy reads the value as httpproxy does, which takes one that it can't read for none. No message repeats it: it may hold a password.
func checkProxy(value string) error {
	if value == "" {
		return nil
	}
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Hostname() == "":
		return errors.New(`want an address such as "http://proxy.example:3128"`)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("a proxy of the kind %q is not supported; use one that speaks HTTP", u.Scheme)
	}
	return nil
}

// forHost is the proxy for a connection, nil for none.
func (p *upstreamProxy) forHost(v policy.Verdict, host policy.Host, port uint16) *url.URL {
	if v.TCP || v.Rule.Private || !v.Rule.To.IsZero() {
		return nil
	}
	if addr := host.Addr(); addr.IsValid() && policy.AddressClass(addr) != policy.ClassPublic {
		return nil
	}
	target := &url.URL{Scheme: "https", Host: net.JoinHostPort(host.String(), fmt.Sprint(port))}
	if port == 80 {
		target.Scheme = "http"
	}
	proxy, err := p.find(target)
	if err != nil {
		panic("egress: a proxy that New has checked can't be read") // without err: it holds the value
	}
	return proxy
}

// connect asks the proxy for a tunnel (RFC 9110, section 9.3.6).
func (p *upstreamProxy) connect(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), proxy *url.URL, target string) (halfCloser, error) {
	conn, err := dial(ctx, "tcp", proxyAddress(proxy))
	if err != nil {
		return nil, fail(CodeProxy, fmt.Sprintf("the proxy %s can't be reached", proxy.Host))
	}
	if proxy.Scheme == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: proxy.Hostname(), RootCAs: p.roots, MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, fail(CodeProxy, fmt.Sprintf("the proxy %s could not prove who it is: %v", proxy.Host, err))
		}
		conn = secure
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	rest, err := askTunnel(conn, proxy, target)
	if !stop() {
		err = fail(CodeProxy, fmt.Sprintf("the proxy %s did not answer in time", proxy.Host))
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return tunnel{conn.(halfCloser), rest}, nil
}

func proxyAddress(proxy *url.URL) string {
	port := proxy.Port()
	switch {
	case port != "":
	case proxy.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(proxy.Hostname(), port)
}

// askTunnel returns what reads the tunnel's bytes from then on.
func askTunnel(conn net.Conn, proxy *url.URL, target string) (io.Reader, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", target, target)
	if proxy.User != nil {
		password, _ := proxy.User.Password()
		auth := base64.StdEncoding.EncodeToString([]byte(proxy.User.Username() + ":" + password))
		fmt.Fprintf(&b, "Proxy-Authorization: Basic %s\r\n", auth)
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return nil, fail(CodeProxy, fmt.Sprintf("the proxy %s broke off", proxy.Host))
	}
	limited := &io.LimitedReader{R: conn, N: maxProxyAnswer}
	br := bufio.NewReader(limited)
	answer, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, fail(CodeProxy, fmt.Sprintf("the proxy %s gave no answer that makes sense", proxy.Host))
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fail(CodeProxy, fmt.Sprintf("the proxy %s answered %d to CONNECT %s", proxy.Host, answer.StatusCode, target))
	}
	early, err := br.Peek(br.Buffered())
	if err != nil {
		return nil, fail(CodeProxy, fmt.Sprintf("the proxy %s broke off", proxy.Host))
	}
	return io.MultiReader(strings.NewReader(string(early)), conn), nil
}

// tunnel is a connection to the proxy, read from behind its answer.
type tunnel struct {
	halfCloser
	rest io.Reader
}

func (t tunnel) Read(p []byte) (int, error) { return t.rest.Read(p) }
