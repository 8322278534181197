package manifest

import (
	"encoding/base64"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/runnertest"
)

// authorities are those of a fake sigstore, a minute after the runs of the tests.
type authorities struct{ *runnertest.Sigstore }

func newAuthorities(t testing.TB) authorities {
	t.Helper()
	return authorities{runnertest.NewSigstore(t, func() time.Time { return testTime().Add(time.Minute) })}
}

func (a authorities) authority() *TimestampAuthority {
	return &TimestampAuthority{URL: a.TimestampURL()}
}

func (a authorities) trusted(t testing.TB) *TrustedRoot {
	t.Helper()
	root, err := ParseTrustedRoot(a.TrustedRoot())
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// testToken is a JWT as far as the client reads it.
func testToken(subject string) string {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return part(`{"alg":"RS256"}`) + "." + part(`{"sub":"`+subject+`"}`) + "." + part("signature")
}
