package event

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSummaryCredentials: each credential is one entry with the latest of everything, and the worst of its ends.
func TestSummaryCredentials(t *testing.T) {
	later := testExpiry().AddDate(0, 0, 1)
	s := foldAll(
		CredentialIssued{Name: "a", Source: "env"},
		CredentialIssued{Name: "b", Source: "github-app", TokenSHA256: "1", Expires: testExpiry()},
		CredentialRenewed{Name: "b", TokenSHA256: "2", Expires: &later, Count: 1},
		CredentialUsed{Name: "b", Requests: 1},
		CredentialUsed{Name: "b", Requests: 5, PerHost: map[string]uint64{"x": 5}},
		CredentialRevoked{Name: "b", TokenSHA256: "1", Status: RevocationFailed},
		CredentialRevoked{Name: "b", TokenSHA256: "2", Status: RevocationVerified},
	)
	want := []CredentialState{
		{CredentialIssued: CredentialIssued{Name: "a", Source: "env"}},
		{
			CredentialIssued: CredentialIssued{Name: "b", Source: "github-app", TokenSHA256: "2", Expires: &later},
			Renewals:         1, Revoked: RevocationFailed,
			Revocations: []CredentialRevoked{{Name: "b", TokenSHA256: "1", Status: RevocationFailed}, {Name: "b", TokenSHA256: "2", Status: RevocationVerified}},
			Used:        &CredentialUsed{Name: "b", Requests: 5, PerHost: map[string]uint64{"x": 5}},
		},
	}
	if diff := cmp.Diff(want, s.Credentials); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if s := foldAll(RunStarted{}); s.Credentials == nil || len(s.Credentials) != 0 {
		t.Errorf("without credentials: %#v", s.Credentials)
	}
}

func TestWorseRevocation(t *testing.T) {
	for _, tt := range []struct{ a, b, want Revocation }{
		{"", RevocationVerified, RevocationVerified},
		{RevocationVerified, RevocationExpired, RevocationExpired},
		{RevocationFailed, RevocationVerified, RevocationFailed},
		{RevocationFailed, "from the future", "from the future"},
		{"from the future", RevocationFailed, "from the future"},
	} {
		if got := worse(tt.a, tt.b); got != tt.want {
			t.Errorf("worse(%q, %q) = %q, want %q", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestSummaryCredentialsAreBounded(t *testing.T) {
	f := NewFold(testRun)
	for i := range 5000 {
		f.add(envelopes(CredentialIssued{Name: fmt.Sprint(i)})[0])
		f.add(envelopes(CredentialRevoked{Name: "0"})[0])
	}
	s := f.Summary()
	if len(s.Credentials) != maxListed || len(s.Credentials[0].Revocations) != maxListed {
		t.Errorf("%d credentials, %d revocations", len(s.Credentials), len(s.Credentials[0].Revocations))
	}
	s.Credentials[0].Revocations[0].Name = "changed"
	if got := f.Summary().Credentials[0].Revocations[0].Name; got != "0" {
		t.Errorf("the caller changed the fold: %q", got)
	}
}
