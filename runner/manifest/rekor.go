package manifest

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// signatureLog is a log of signatures (Rekor), such as a trusted root names.
type signatureLog struct {
	name  string
	id    []byte
	key   crypto.PublicKey // nil: of a kind that is not understood
	from  time.Time
	until time.Time // zero: until now
}

func (l signatureLog) validAt(at time.Time) bool {
	return !at.Before(l.from) && (l.until.IsZero() || !at.After(l.until))
}

// logEntry is a bundle's word that its signature is in a log, with the log's word for it
// (https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_rekor.proto). There are two: the promise to take it in, which has a time,
// and the proof that it is in.
type logEntry struct {
	LogIndex int64Text `json:"logIndex"` // over all parts of the log
	LogID    struct {
		KeyID []byte `json:"keyId"`
	} `json:"logId"`
	KindVersion struct {
		Kind    string `json:"kind"`
		Version string `json:"version"`
	} `json:"kindVersion"`
	IntegratedTime    int64Text         `json:"integratedTime"` // seconds since 1970; 0 where nobody says it
	InclusionPromise  *inclusionPromise `json:"inclusionPromise,omitempty"`
	InclusionProof    *inclusionProof   `json:"inclusionProof,omitempty"`
	CanonicalizedBody []byte            `json:"canonicalizedBody"`
}

type inclusionPromise struct {
	SignedEntryTimestamp []byte `json:"signedEntryTimestamp"`
}

// int64Text is a number as protobuf has it in JSON, as text; some write it as a number.
type int64Text int64

// UnmarshalJSON takes both.
func (n *int64Text) UnmarshalJSON(b []byte) error {
	i, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	*n = int64Text(i)
	return err
}

// MarshalJSON writes the text.
func (n int64Text) MarshalJSON() ([]byte, error) {
	return strconv.AppendQuote(nil, strconv.FormatInt(int64(n), 10)), nil
}

// maxLogEntries bounds the work on a file.
const maxLogEntries = 8

var errOtherLog = errors.New("the signature is in a log that is not trusted")

// inLog is the answer about logs of signatures. A bundle that says it is in one has to be right, if there is one that is trusted: who reads
// such a bundle takes that for checked. signer is the certificate or the key in DER.
func (v *verification) inLog(signer []byte) Finding {
	answer := func(s State, detail string) Finding { return Finding{AxisLog, s, detail} }
	unless := Skipped
	if v.accept.RequireLog {
		unless = Failed
	}
	var entries []json.RawMessage
	if b := v.opened.Bundle; b != nil {
		entries = b.VerificationMaterial.TlogEntries
	}
	trusted := v.accept.Trusted
	switch {
	case len(entries) == 0:
		return answer(unless, "it has no word of a log of signatures")
	case len(entries) > maxLogEntries:
		return answer(Failed, fmt.Sprintf("it has the word of %d logs, more than %d", len(entries), maxLogEntries))
	case trusted == nil || len(trusted.logs) == 0:
		return answer(unless, "it has the word of a log of signatures, and none is trusted")
	}
	said := ""
	for _, raw := range entries {
		e, l, err := v.entry(raw, signer)
		if errors.Is(err, errOtherLog) {
			continue
		}
		if err != nil {
			return answer(Failed, err.Error())
		}
		said = fmt.Sprintf("entry %d of the log %s", e.LogIndex, l.name)
	}
	if said == "" {
		return answer(Failed, errOtherLog.Error())
	}
	return answer(Passed, said)
}

// entry checks one entry, and notes the time that its log vouches for.
func (v *verification) entry(raw json.RawMessage, signer []byte) (e logEntry, l signatureLog, err error) {
	if err := strictly(raw, &e); err != nil {
		return e, l, fmt.Errorf("the entry of a log can't be read: %w", err)
	}
	known := false
	for _, one := range v.accept.Trusted.logs {
		if bytes.Equal(one.id, e.LogID.KeyID) {
			l, known = one, true
		}
	}
	if !known {
		return e, l, errOtherLog
	}
	if err := e.isAbout(v.opened, signer); err != nil {
		return e, l, err
	}
	if e.InclusionPromise == nil && e.InclusionProof == nil {
		return e, l, errors.New("the entry has neither a promise of its log nor a proof")
	}
	if e.InclusionProof != nil {
		if err := e.InclusionProof.check(l.key, e.CanonicalizedBody); err != nil {
			return e, l, err
		}
	}
	if e.InclusionPromise == nil {
		// Nobody has signed what it says of the time, nor its place but that in the proof. The second version has one tree, and so one place.
		if e.LogIndex != e.InclusionProof.LogIndex && secondVersion(e.KindVersion.Kind, e.KindVersion.Version) {
			return e, l, errors.New("the log's proof is about another place than the entry's")
		}
		e.LogIndex = e.InclusionProof.LogIndex
		return e, l, nil
	}
	if err := checkSignature(l.key, e.promised(), e.InclusionPromise.SignedEntryTimestamp); err != nil {
		return e, l, errors.New("the log has not signed the promise of its entry")
	}
	at := time.Unix(int64(e.IntegratedTime), 0).UTC()
	if !l.validAt(at) {
		return e, l, fmt.Errorf("the log %s is not trusted for %s", l.name, at.Format(time.RFC3339))
	}
	v.times = append(v.times, at)
	return e, l, nil
}

// promised is what a log signs as its promise: JSON with its keys in order (RFC 8785).
func (e logEntry) promised() []byte {
	return fmt.Appendf(nil, `{"body":"%s","integratedTime":%d,"logID":"%x","logIndex":%d}`,
		base64.StdEncoding.EncodeToString(e.CanonicalizedBody), e.IntegratedTime, e.LogID.KeyID, e.LogIndex)
}

// isAbout compares what the log has with this very envelope: its signature, who made it, and what it is over.
func (e logEntry) isAbout(o Opened, signer []byte) error {
	has, err := e.logged()
	if err != nil {
		return err
	}
	if len(o.Envelope.Signatures) != 1 {
		return errSignature
	}
	sig, err := base64.StdEncoding.DecodeString(o.Envelope.Signatures[0].Sig)
	payload, message := sha256.Sum256(o.Payload), sha256.Sum256(dsse.PAE(o.Envelope.PayloadType, o.Payload))
	switch {
	case err != nil:
		return err
	case !bytes.Equal(has.signature, sig):
		return errors.New("the log's entry is about another signature")
	case !bytes.Equal(has.signer, signer):
		return errors.New("the log's entry is about another signer")
	case has.payload != nil && !bytes.Equal(has.payload, payload[:]), has.message != nil && !bytes.Equal(has.message, message[:]):
		return errors.New("the log's entry is about another statement")
	}
	return nil
}
