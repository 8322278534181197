package broker

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is read again when one of its files has changed, so that whoever renews it need not restart the broker.
type certificate struct {
	files TLS
	log   *slog.Logger

	mu     sync.Mutex // guards the rest
	loaded *tls.Certificate
	state  [2]fileState // that was tried last
}

type fileState struct {
	changed time.Time
	size    int64
}

// current is the certificate for a handshake. Files that are not valid, such as half of a renewal, leave the old one in place.
func (c *certificate) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var state [2]fileState
	for i, name := range []string{c.files.Certificate, c.files.Key} {
		if info, err := os.Stat(name); err == nil { // else it is zero: changed
			state[i] = fileState{info.ModTime(), info.Size()}
		}
	}
	if c.loaded != nil && state == c.state {
		return c.loaded, nil
	}
	c.state = state
	fresh, err := tls.LoadX509KeyPair(c.files.Certificate, c.files.Key)
	switch {
	case err == nil:
		c.loaded = &fresh
		c.log.Info("certificate read", "file", c.files.Certificate, "expires", fresh.Leaf.NotAfter)
	case c.loaded == nil:
		return nil, fmt.Errorf("tls: %w", err)
	default:
		c.log.Error("certificate not read again: the old one stays", "error", err)
	}
	return c.loaded, nil
}
