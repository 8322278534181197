package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
)

const (
	maxKeys   = 1 << 20         // bytes of a JWKS
	keysFresh = 5 * time.Minute // no look at the issuer
	keysLife  = 10 * time.Minute
	keysWait  = 10 * time.Second // between two looks, whether they failed or had not the key
)

// keySet is the JWKS of one issuer at its pinned address. Keys are fetched again when they are no longer fresh, and used to the end of their life if that fails.
type keySet struct {
	url     string
	client  *http.Client
	fetches singleflight.Group
	fetched func(error) // hears of every fetch

	mu      sync.Mutex // guards the rest
	keys    jose.JSONWebKeySet
	since   time.Time // of the keys
	tried   time.Time
	failure error // of the last try
}

// find gives the key of this id, nil if the issuer has none.
func (k *keySet) find(ctx context.Context, id string, now time.Time) (*jose.JSONWebKey, error) {
	key, age := k.known(id, now)
	if key != nil && age < keysFresh {
		return key, nil
	}
	err := k.refresh(ctx, now)
	if err == nil {
		key, age = k.known(id, now)
	}
	switch {
	case key != nil && age < keysLife:
		return key, nil
	case err != nil:
		return nil, err
	case key != nil:
		return nil, errors.New("the keys are too old, and it is too early to ask again")
	}
	return nil, nil
}

func (k *keySet) known(id string, now time.Time) (*jose.JSONWebKey, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.keys.Key(id) {
		if id != "" && key.IsPublic() && key.Valid() {
			return &key, now.Sub(k.since)
		}
	}
	return nil, 0
}

// refresh asks the issuer, unless that was done a moment ago: then what came of it counts. Whoever asks meanwhile waits for the same answer, and no
// longer than its own request lasts.
func (k *keySet) refresh(ctx context.Context, now time.Time) error {
	k.mu.Lock()
	tried, failure := k.tried, k.failure
	k.mu.Unlock()
	if now.Sub(tried) < keysWait {
		return failure
	}
	done := k.fetches.DoChan("", func() (any, error) {
		keys, err := k.fetch(context.WithoutCancel(ctx)) // the client's time-out bounds it
		k.fetched(err)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.tried, k.failure = now, err
		if err == nil {
			k.keys, k.since = keys, now
		}
		return nil, err
	})
	select {
	case res := <-done:
		return res.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *keySet) fetch(ctx context.Context) (jose.JSONWebKeySet, error) {
	var keys jose.JSONWebKeySet
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return keys, err
	}
	res, err := k.client.Do(req)
	if err != nil {
		return keys, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return keys, fmt.Errorf("%s: %s", k.url, res.Status)
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxKeys)).Decode(&keys); err != nil {
		return keys, fmt.Errorf("%s: %w", k.url, err)
	}
	return keys, nil
}

// limitedClient follows no redirect: an address that is pinned stays pinned.
func limitedClient() *http.Client {
	return &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
