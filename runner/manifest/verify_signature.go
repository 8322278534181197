package manifest

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// signature answers three questions: whether the bytes are signed, by whom, and when.
func (v *verification) signature() {
	mode := v.opened.Mode()
	switch {
	case mode == None:
		why := ""
		if v.accept.Files != nil {
			if why = WhyUnsigned(v.accept.Files, v.content); why != "" {
				why = "; the run says why: " + why
			}
		}
		v.say(AxisSignature, Failed, "nobody signed it: whoever owns the file can have changed it"+why)
		v.skip("there is no signature", "there is no signature")
	case v.accept.Key != nil:
		v.byKey(mode)
	case mode == Keyless:
		v.byCertificate()
	default:
		v.say(AxisSignature, Failed, "it is signed with a key, and no key was named to check it with")
		v.skip("a key tells nobody's name", "the signature is not checked")
	}
}

// skip leaves the questions behind that of the signature open.
func (v *verification) skip(identity, otherwise string) {
	v.say(AxisIdentity, Skipped, identity)
	v.say(AxisTime, Skipped, otherwise)
	v.say(AxisLog, Skipped, otherwise)
}

func (v *verification) byKey(mode Mode) {
	if mode == Keyless {
		v.say(AxisSignature, Failed, "it is signed with a certificate, and a key was named")
		v.skip("the signature is not checked", "the signature is not checked")
		return
	}
	if err := verifyEnvelope(v.accept.Key, v.opened.Envelope, v.opened.Payload); err != nil {
		v.say(AxisSignature, Failed, err.Error())
		v.skip("the signature does not fit the key", "the signature does not fit the key")
		return
	}
	id, err := KeyID(v.accept.Key)
	if err != nil {
		id = "of an unknown kind"
	}
	v.say(AxisSignature, Passed, "these bytes, with the key that was named")
	v.say(AxisIdentity, Passed, "the key "+id)
	der, _ := x509.MarshalPKIXPublicKey(v.accept.Key) // of another kind it has signed nothing
	log := v.inLog(der)
	v.timestamps()
	v.stamped(false)
	v.report.Verdicts = append(v.report.Verdicts, log)
}

// byCertificate: the certificate's key signed the bytes; an authority of the acceptance issued it, and vouches for the name; and it was
// valid at a time that another authority vouches for, or a log of signatures.
func (v *verification) byCertificate() {
	leaf, err := x509.ParseCertificate(v.opened.Bundle.VerificationMaterial.Certificate.RawBytes)
	if err == nil {
		v.leaf = leaf
		err = verifyEnvelope(leaf.PublicKey, v.opened.Envelope, v.opened.Payload)
	}
	if err != nil {
		v.say(AxisSignature, Failed, err.Error())
		v.skip("the signature does not fit the certificate", "the signature does not fit the certificate")
		return
	}
	v.say(AxisSignature, Passed, "these bytes, with the key of the certificate")
	if v.accept.Trusted == nil {
		v.say(AxisIdentity, Failed, "no trusted root was given to check the certificate with")
		v.say(AxisTime, Failed, "no trusted root was given to check the timestamp with")
		v.report.Verdicts = append(v.report.Verdicts, v.inLog(leaf.Raw))
		return
	}
	v.timestamps()
	log := v.inLog(leaf.Raw)
	v.identity()
	v.stamped(true)
	v.report.Verdicts = append(v.report.Verdicts, log)
}

// stamped is the answer about the time. A certificate of ten minutes needs one; a key that does not expire doesn't.
func (v *verification) stamped(required bool) {
	switch {
	case len(v.times) == 0 && required:
		v.say(AxisTime, Failed, "neither a timestamp authority nor a log that is trusted says when it was signed")
	case len(v.times) == 0 && v.hasTimestamps() && v.accept.Trusted != nil:
		v.say(AxisTime, Failed, "it has a timestamp, and none of an authority that is trusted")
	case len(v.times) == 0:
		v.say(AxisTime, Skipped, "no authority says when it was signed; the runner's clock says "+v.claimed().Format(time.RFC3339))
	case required && !v.validThen():
		v.say(AxisTime, Failed, fmt.Sprintf("it was signed at %s, and the certificate is valid from %s to %s",
			v.times[0].Format(time.RFC3339), v.leaf.NotBefore.Format(time.RFC3339), v.leaf.NotAfter.Format(time.RFC3339)))
	case v.times[0].Before(v.claimed().Add(-maxSkew)):
		v.say(AxisTime, Failed, fmt.Sprintf("it was signed at %s, before the run ended by its own account", v.times[0].Format(time.RFC3339)))
	default:
		v.report.SignedAt = &v.times[0]
		v.say(AxisTime, Passed, "signed at "+v.times[0].Format(time.RFC3339))
	}
}

// maxSkew is how far the clock of the runner may be ahead of the authority's.
const maxSkew = 5 * time.Minute

// claimed is when the run ended, by the runner's clock.
func (v *verification) claimed() time.Time { return v.report.Statement.Predicate.Outcome.Finished }

func (v *verification) hasTimestamps() bool {
	b := v.opened.Bundle
	return b != nil && b.VerificationMaterial.TimestampVerificationData != nil && len(b.VerificationMaterial.TimestampVerificationData.RFC3161Timestamps) > 0
}

// maxTimestamps bounds the work on a file.
const maxTimestamps = 8

func (v *verification) timestamps() {
	if !v.hasTimestamps() || v.accept.Trusted == nil || len(v.opened.Envelope.Signatures) != 1 {
		return
	}
	sig, err := base64.StdEncoding.DecodeString(v.opened.Envelope.Signatures[0].Sig)
	if err != nil {
		return
	}
	all := v.opened.Bundle.VerificationMaterial.TimestampVerificationData.RFC3161Timestamps
	for _, t := range all[:min(len(all), maxTimestamps)] {
		if at, ok := v.accept.Trusted.stampedAt(t.SignedTimestamp, sig); ok {
			v.times = append(v.times, at)
		}
	}
}

func (v *verification) validThen() bool {
	return !slices.ContainsFunc(v.times, func(t time.Time) bool { return t.Before(v.leaf.NotBefore) || t.After(v.leaf.NotAfter) })
}

// identity is about the certificate, at a time at which it was valid: whether it was valid when it signed is the next question.
func (v *verification) identity() {
	err := v.issued()
	if err == nil {
		err = v.named()
	}
	if err != nil {
		v.say(AxisIdentity, Failed, err.Error())
		return
	}
	v.say(AxisIdentity, Passed, v.report.Identity)
}

func (v *verification) issued() error {
	at := v.leaf.NotBefore
	if len(v.times) > 0 && v.validThen() {
		at = v.times[0]
	}
	if !v.accept.Trusted.issued(v.leaf, at) {
		return errors.New("the certificate is of no authority that is trusted, or it is in none of the logs that belong to one")
	}
	return nil
}

// named compares what the certificate says with the acceptance. An acceptance that names nobody accepts nobody.
func (v *verification) named() error {
	issuedBy, err := v.extension(oidIssuer)
	if err != nil {
		return err
	}
	if v.report.Identity, err = v.subject(); err != nil {
		return err
	}
	job, err := v.job()
	if err != nil {
		return err
	}
	v.report.Job = &job
	a := v.accept
	issuer := a.Issuer
	if issuer == "" && (a.Repository != "" || a.Owner != "") {
		issuer = GitHubIssuer
	}
	switch {
	case issuer == "" || a.Identity == "" && a.Repository == "" && a.Owner == "":
		return errors.New("no identity was named to accept")
	case issuedBy != issuer:
		return fmt.Errorf("the identity is of the issuer %q, not of %q", issuedBy, issuer)
	case a.Identity != "" && v.report.Identity != a.Identity:
		return fmt.Errorf("the identity is %q, not %q", v.report.Identity, a.Identity)
	case a.Repository != "" && job.RepositoryID != a.Repository:
		return fmt.Errorf("it was signed for the repository with the id %s, not for %s", orNone(job.RepositoryID), a.Repository)
	case a.Owner != "" && job.OwnerID != a.Owner:
		return fmt.Errorf("it was signed for a repository of the owner with the id %s, not of %s", orNone(job.OwnerID), a.Owner)
	}
	return v.agrees(job)
}

// agrees: what the statement says of the job is the runner's word, and what the certificate says the issuer's. They must not differ.
func (v *verification) agrees(job Job) error {
	i := v.report.Statement.Predicate.Invocation
	for _, f := range []struct{ what, statement, certificate string }{
		{"repository id", i.RepositoryID, job.RepositoryID},
		{"owner id", i.RepositoryOwnerID, job.OwnerID},
		{"run", i.RunURL, runOf(job.RunURL)},
	} {
		if f.statement != "" && f.certificate != "" && f.statement != f.certificate {
			return fmt.Errorf("the manifest says that it is of the %s %s, and the certificate that it is of %s", f.what, f.statement, f.certificate)
		}
	}
	return nil
}

// runOf is the URL of a CI run without the attempt.
func runOf(url string) string {
	run, _, _ := strings.Cut(url, "/attempts/")
	return run
}

// Fulcio's extensions (https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md).
var (
	oidIssuer     = fulcioOID(8)
	oidRepository = fulcioOID(15) // GitHub's id of it
	oidOwner      = fulcioOID(17) // GitHub's id of it
	oidWorkflow   = fulcioOID(19) // commit of the workflow file
	oidRun        = fulcioOID(21) // its URL
)

func fulcioOID(n int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n}
}

// job reads what the certificate says of a CI job. An extension may be absent, and must not be there twice.
func (v *verification) job() (j Job, err error) {
	for _, f := range []struct {
		oid asn1.ObjectIdentifier
		to  *string
	}{{oidRepository, &j.RepositoryID}, {oidOwner, &j.OwnerID}, {oidWorkflow, &j.WorkflowSHA}, {oidRun, &j.RunURL}} {
		if !slices.ContainsFunc(v.leaf.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(f.oid) }) {
			continue
		}
		if *f.to, err = v.extension(f.oid); err != nil {
			return Job{}, err
		}
	}
	return j, nil
}

// extension is the text of one of Fulcio's extensions, which has to be there once.
func (v *verification) extension(oid asn1.ObjectIdentifier) (string, error) {
	var text string
	n := 0
	for _, e := range v.leaf.Extensions {
		if !e.Id.Equal(oid) {
			continue
		}
		n++
		if rest, err := asn1.UnmarshalWithParams(e.Value, &text, "utf8"); err != nil || len(rest) > 0 {
			return "", fmt.Errorf("the certificate's extension %s is no text", oid)
		}
	}
	if n != 1 {
		return "", fmt.Errorf("the certificate has the extension %s %d times, not once", oid, n)
	}
	return text, nil
}

// subject is the certificate's only alternative name: the URI of a workflow, or somebody's address.
func (v *verification) subject() (string, error) {
	var names []string
	for _, u := range v.leaf.URIs {
		names = append(names, u.String())
	}
	names = append(names, v.leaf.EmailAddresses...)
	if len(names) != 1 || len(v.leaf.DNSNames)+len(v.leaf.IPAddresses) > 0 {
		return "", errors.New("the certificate is not for exactly one URI or mail address")
	}
	return names[0], nil
}
