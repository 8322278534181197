package manifest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/hashicorp/go-retryablehttp"
)

// TimestampAuthority says, by its signature, that something existed at a time (RFC 3161).
type TimestampAuthority struct {
	URL  string
	HTTP *http.Client // nil: one of ours
}

// maxAnswer bounds the answer of a service in bytes: a few certificates.
const maxAnswer = 256 << 10

// stamp asks for a timestamp of a signature.
func (a *TimestampAuthority) stamp(ctx context.Context, sig []byte) (*TimestampVerificationData, error) {
	hash := crypto.SHA256.New()
	hash.Write(sig)
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, err
	}
	request := timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: hash.Sum(nil), Certificates: true, Nonce: nonce}
	body, err := request.Marshal()
	if err != nil {
		return nil, fmt.Errorf("timestamp: %w", err)
	}
	answer, err := post(ctx, a.HTTP, a.URL, http.Header{"Content-Type": {"application/timestamp-query"}}, body)
	if err != nil {
		return nil, fmt.Errorf("timestamp: %w", err)
	}
	// The verifier checks it against what it trusts. Here it is only made sure that it is an answer to this question.
	stamped, err := timestamp.ParseResponse(answer)
	switch {
	case err != nil:
		return nil, fmt.Errorf("timestamp: %w", err)
	case !bytes.Equal(stamped.HashedMessage, request.HashedMessage) || stamped.Nonce == nil || stamped.Nonce.Cmp(nonce) != 0:
		return nil, errors.New("timestamp: the authority answered another question")
	}
	return &TimestampVerificationData{RFC3161Timestamps: []RFC3161Timestamp{{SignedTimestamp: answer}}}, nil
}

// Bounds of a request to a signing service.
const (
	tries       = 4
	requestTime = 20 * time.Second
)

// post sends a request to a service, again if it fails for a moment. It follows no redirect. An answer with another status than 200 or
// 201 is a [statusError].
func post(ctx context.Context, base *http.Client, to string, header http.Header, body []byte) ([]byte, error) {
	c := retryablehttp.NewClient()
	c.Logger = nil // it would print the request
	c.RetryMax, c.RetryWaitMin, c.RetryWaitMax = tries-1, 200*time.Millisecond, 3*time.Second
	c.ErrorHandler = retryablehttp.PassthroughErrorHandler
	c.HTTPClient = &http.Client{Timeout: requestTime}
	if base != nil {
		c.HTTPClient.Transport = base.Transport
	}
	c.HTTPClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, to, body)
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated:
		return nil, &statusError{hostOf(to), resp.StatusCode}
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("%s answered with more than %d bytes", hostOf(to), maxAnswer)
	}
	return answer, nil
}

// statusError is an answer that says no.
type statusError struct {
	host string
	code int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s answered with status %d", e.host, e.code)
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the service"
	}
	return u.Host
}
