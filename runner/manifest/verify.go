package manifest

import (
	"crypto"
	"crypto/x509"
	"io/fs"
	"slices"
	"time"
)

// Axis is one question about a manifest. Each is answered by itself, so that it is clear what is wrong.
type Axis string

// The axes, in the order in which they are answered.
const (
	AxisSyntax    Axis = "syntax"    // it is a statement of this version, in its one spelling
	AxisSignature Axis = "signature" // the key of the acceptance, or that of the certificate, signed these very bytes
	AxisIdentity  Axis = "identity"  // whose key that is, by the acceptance
	AxisTime      Axis = "time"      // when it was signed, by the word of an authority
	AxisLog       Axis = "log"       // a log of signatures has it, by the log's word
	AxisBinding   Axis = "binding"   // the files at hand are those that it is about
	AxisPolicy    Axis = "policy"    // the run was governed by a policy of the acceptance
)

// State is the answer on one axis.
type State string

// The states.
const (
	Passed  State = "passed"
	Failed  State = "failed"
	Skipped State = "skipped" // the acceptance does not ask, or there is nothing to compare
)

// Finding is the answer on one axis, for people in Detail.
type Finding struct {
	Axis   Axis   `json:"axis"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
}

// Report is what came of a verification.
type Report struct {
	Verdicts  []Finding  `json:"verdicts"`
	Statement *Statement `json:"-"` // nil if the syntax failed; to be trusted only if OK
	SignedAt  *time.Time `json:"signed_at,omitempty"`
	Identity  string     `json:"identity,omitempty"` // the certificate's subject
	Job       *Job       `json:"job,omitempty"`      // nil if it is not signed by a certificate; to be trusted only if OK
}

// OK reports that nothing failed, and that the signature and whose it is were checked.
func (r Report) OK() bool {
	for _, v := range r.Verdicts {
		if v.State == Failed || v.State == Skipped && (v.Axis == AxisSyntax || v.Axis == AxisSignature || v.Axis == AxisIdentity) {
			return false
		}
	}
	return len(r.Verdicts) > 0
}

// State is that of one axis.
func (r Report) State(a Axis) State {
	i := slices.IndexFunc(r.Verdicts, func(v Finding) bool { return v.Axis == a })
	if i < 0 {
		return Skipped
	}
	return r.Verdicts[i].State
}

// Job is what a certificate says of the CI job that signed, by the claims of its identity
// (https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md). What a job's certificate does not have is empty.
type Job struct {
	RepositoryID string `json:"repository_id,omitempty"`
	OwnerID      string `json:"owner_id,omitempty"`
	WorkflowSHA  string `json:"workflow_sha,omitempty"` // commit of the workflow file
	RunURL       string `json:"run_url,omitempty"`      // with the attempt
}

// Acceptance is what a verifier accepts. It comes from outside: nothing of a manifest decides what it is checked against. The zero value
// accepts nothing.
type Acceptance struct {
	// Key is the one that has to have signed. With it certificates are not accepted.
	Key crypto.PublicKey

	// Identity and Issuer are the certificate's subject and the issuer of the identity, exactly. Repository and Owner are GitHub's ids
	// of the repository whose workflow signed, and of its owner, with Issuer or GitHub's own. All that are given have to fit.
	Identity   string
	Issuer     string
	Repository string
	Owner      string
	// Trusted has the certificate authorities, the timestamp authorities and the logs. Required for certificates, and for a time.
	Trusted *TrustedRoot
	// RequireLog: the signature has to be in a log of signatures that is trusted. Without it that is only asked of a manifest that says so.
	RequireLog bool

	// Policies are the digests of acceptable policies; empty: any.
	Policies []string

	// Files are those of the run that are at hand, under the names of its directory. Nil: none.
	Files fs.FS
	// Artifacts are files that have to be subjects, by whatever name: hex SHA-256.
	Artifacts []Artifact
	// Trees are ids of git trees that have to be subjects.
	Trees []string
}

// Artifact is a file that somebody has and wants to know the origin of.
type Artifact struct{ Name, SHA256 string }

// GitHubIssuer is the issuer of the identities of jobs on github.com.
const GitHubIssuer = "https://token.actions.githubusercontent.com"

// Verify answers every question about a manifest's file, offline.
func Verify(file []byte, accept Acceptance) Report {
	v := verification{accept: accept, content: file}
	if v.syntax(file) {
		v.signature()
		v.bound()
		v.policy()
	}
	return v.report
}

// verification is one under way.
type verification struct {
	accept  Acceptance
	content []byte // of the manifest's file
	opened  Opened
	report  Report
	leaf    *x509.Certificate // of a keyless signature
	times   []time.Time       // that authorities vouch for
}

func (v *verification) say(a Axis, s State, detail string) {
	v.report.Verdicts = append(v.report.Verdicts, Finding{a, s, detail})
}

func (v *verification) syntax(file []byte) bool {
	var err error
	if v.opened, err = Open(file); err == nil {
		var s Statement
		if s, err = Decode(v.opened.Payload); err == nil {
			v.report.Statement = &s
		}
	}
	if err != nil {
		v.say(AxisSyntax, Failed, err.Error())
		return false
	}
	v.say(AxisSyntax, Passed, "a statement about run "+v.report.Statement.Predicate.Run)
	return true
}

func (v *verification) policy() {
	digest := v.report.Statement.Predicate.Policy.Digest
	switch {
	case len(v.accept.Policies) == 0:
		v.say(AxisPolicy, Skipped, "no policy was named; the run had "+orNone(digest))
	case digest != "" && slices.Contains(v.accept.Policies, digest):
		v.say(AxisPolicy, Passed, digest)
	default:
		v.say(AxisPolicy, Failed, "the run had "+orNone(digest)+", which is not among those that were named")
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
