package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"
)

// drain is how long requests have to end once the broker has been told to.
const drain = patience + 5*time.Second

// Serve answers at l, over TLS if the configuration has a certificate, until ctx is done; then it takes no new connections, and returns when what it has begun
// is answered.
func (b *Broker) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: b, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: patience + 20*time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 2 * maxToken,
	}
	if b.cfg.TLS.Certificate != "" {
		c := &certificate{files: b.cfg.TLS, log: b.log}
		if _, err := c.current(nil); err != nil {
			return errors.Join(err, l.Close())
		}
		server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.current}
	}
	b.log.Info("broker serves", "address", l.Addr().String(), "tls", server.TLSConfig != nil)
	ended := make(chan error, 1)
	go func() {
		if server.TLSConfig != nil {
			ended <- server.ServeTLS(l, "", "")
			return
		}
		ended <- server.Serve(l)
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	b.draining.Store(true)
	b.log.Info("broker drains")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err := server.Shutdown(ctx)
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
