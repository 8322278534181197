package broker

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// maxCounted bounds the names that a limiter knows; those beyond share one count.
const maxCounted = 1 << 16

// limiter counts what each name did in the present minute.
type limiter struct {
	most int

	mu     sync.Mutex // guards the rest
	minute time.Time
	counts map[string]int
}

func newLimiter(most int) *limiter { return &limiter{most: most, counts: map[string]int{}} }

// take counts one more, and tells whether that was still within the limit.
func (l *limiter) take(name string, now time.Time) bool { return l.count(name, 1, now) <= l.most }

// spent tells whether there is nothing left, and counts nothing.
func (l *limiter) spent(name string, now time.Time) bool { return l.count(name, 0, now) >= l.most }

func (l *limiter) count(name string, add int, now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if minute := now.Truncate(time.Minute); !minute.Equal(l.minute) {
		l.minute = minute
		clear(l.counts)
	}
	if _, known := l.counts[name]; !known && len(l.counts) >= maxCounted {
		name = ""
	}
	if add > 0 {
		l.counts[name] += add
	}
	return l.counts[name]
}

// clientOf is the address that a request came from: the nearest one that is none of the configured proxies. What stands before that in X-Forwarded-For
// the client made up. An IPv6 client has its whole /64.
func (b *Broker) clientOf(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	addr := peer.Addr().Unmap()
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && b.isProxy(addr); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = hop.Unmap()
	}
	if addr.Is6() {
		return netip.PrefixFrom(addr.WithZone(""), 64).Masked().String()
	}
	return addr.String()
}

func (b *Broker) isProxy(addr netip.Addr) bool {
	for _, p := range b.proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
