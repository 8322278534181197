package manifest

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// Rekor is a log of signatures that takes ours in, and proves to anybody that it has them.
type Rekor struct {
	address string
	version int
	HTTP    *http.Client // nil: one of ours
}

// The paths that entries are posted to (https://github.com/sigstore/rekor/blob/main/openapi.yaml,
// https://github.com/sigstore/rekor-tiles/blob/main/CLIENTS.md).
const (
	rekorPath1 = "/api/v1/log/entries"
	rekorPath2 = "/api/v2/log/entries"
)

// NewRekor is the log with the address that entries are posted to. Its path tells which version of the protocol is spoken.
func NewRekor(address string) (*Rekor, error) {
	switch {
	case strings.HasSuffix(address, rekorPath1):
		return &Rekor{address: address, version: 1}, nil
	case strings.HasSuffix(address, rekorPath2):
		return &Rekor{address: address, version: 2}, nil
	}
	return nil, fmt.Errorf("%q ends neither with %s nor with %s, by which the version of a log is known", address, rekorPath1, rekorPath2)
}

// dates says whether the log's word has a time in it: the second version left that to timestamp authorities.
func (r *Rekor) dates() bool { return r != nil && r.version == 1 }

// enter has the log take in the signature of an envelope, and returns the entry as bundles have it. Logs keep digests, the signature and the
// certificate; the first version asks to see the envelope.
func (r *Rekor) enter(ctx context.Context, e Envelope, payload, sig []byte, certificate *x509.Certificate) (json.RawMessage, error) {
	ask, read := request1, entry1
	if r.version == 2 {
		ask, read = request2, entry2
	}
	body, err := ask(e, payload, sig, certificate)
	if err != nil {
		return nil, fmt.Errorf("log of signatures: %w", err)
	}
	answer, err := post(ctx, r.HTTP, r.address, http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"}}, body)
	if err != nil {
		return nil, fmt.Errorf("log of signatures: %w", err)
	}
	entry, err := read(answer)
	if err != nil {
		return nil, fmt.Errorf("log of signatures: %s did not answer with an entry: %w", hostOf(r.address), err)
	}
	// The verifier checks it against what it trusts. Here it is only made sure that it is an answer to this question.
	if err := entry.isAbout(Opened{Envelope: e, Payload: payload}, certificate.Raw); err != nil {
		return nil, fmt.Errorf("log of signatures: %w", err)
	}
	return json.Marshal(entry)
}

// request1 is for the kind of entry that every verifier knows
// (https://github.com/sigstore/rekor/blob/main/pkg/types/dsse/v0.0.1/dsse_v0_0_1_schema.json).
func request1(e Envelope, _, _ []byte, certificate *x509.Certificate) ([]byte, error) {
	envelope, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	verifier := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
	return json.Marshal(map[string]any{"kind": "dsse", "apiVersion": "0.0.1", "spec": map[string]any{
		"proposedContent": map[string]any{"envelope": string(envelope), "verifiers": [][]byte{verifier}},
	}})
}

// request2 is about what DSSE signs: the second version knows no envelopes.
func request2(e Envelope, payload, sig []byte, certificate *x509.Certificate) ([]byte, error) {
	sum := sha256.Sum256(dsse.PAE(e.PayloadType, payload))
	return json.Marshal(map[string]any{"hashedRekordRequestV002": map[string]any{
		"digest": sum[:],
		"signature": map[string]any{"content": sig, "verifier": map[string]any{
			"x509Certificate": RawCertificate{certificate.Raw}, "keyDetails": "PKIX_ECDSA_P256_SHA_256",
		}},
	}})
}

// entry2 reads an answer of the second version, which is an entry as bundles have it.
func entry2(answer []byte) (e logEntry, err error) {
	if err := json.Unmarshal(answer, &e); err != nil {
		return e, errors.New("it is not the JSON that was expected")
	}
	return e, e.complete()
}

// answer1 is an answer of the first version: one entry, by its name.
type answer1 map[string]struct {
	Body           []byte `json:"body"`
	IntegratedTime int64  `json:"integratedTime"`
	LogID          string `json:"logID"`
	LogIndex       int64  `json:"logIndex"`
	Verification   struct {
		InclusionProof *struct {
			Checkpoint string   `json:"checkpoint"`
			Hashes     []string `json:"hashes"`
			LogIndex   int64    `json:"logIndex"`
			RootHash   string   `json:"rootHash"`
			TreeSize   int64    `json:"treeSize"`
		} `json:"inclusionProof"`
		SignedEntryTimestamp []byte `json:"signedEntryTimestamp"`
	} `json:"verification"`
}

// entry1 turns an answer of the first version into an entry as bundles have it.
func entry1(answer []byte) (e logEntry, err error) {
	var a answer1
	if err := json.Unmarshal(answer, &a); err != nil || len(a) != 1 {
		return e, errors.New("it is not the JSON that was expected")
	}
	for _, one := range a {
		v := one.Verification
		if v.InclusionProof == nil || len(v.SignedEntryTimestamp) == 0 {
			return e, errors.New("it has no proof or no promise")
		}
		e.LogIndex, e.IntegratedTime, e.CanonicalizedBody = int64Text(one.LogIndex), int64Text(one.IntegratedTime), one.Body
		e.InclusionPromise = &inclusionPromise{v.SignedEntryTimestamp}
		p := &inclusionProof{LogIndex: int64Text(v.InclusionProof.LogIndex), TreeSize: int64Text(v.InclusionProof.TreeSize)}
		p.Checkpoint.Envelope = v.InclusionProof.Checkpoint
		e.InclusionProof = p
		id, idErr := hex.DecodeString(one.LogID)
		root, rootErr := hex.DecodeString(v.InclusionProof.RootHash)
		if err := errors.Join(idErr, rootErr); err != nil {
			return e, err
		}
		e.LogID.KeyID, p.RootHash = id, root
		for _, text := range v.InclusionProof.Hashes {
			hash, err := hex.DecodeString(text)
			if err != nil {
				return e, err
			}
			p.Hashes = append(p.Hashes, hash)
		}
	}
	var kind struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
	}
	if err := json.Unmarshal(e.CanonicalizedBody, &kind); err != nil {
		return e, errors.New("its body is no JSON")
	}
	e.KindVersion.Kind, e.KindVersion.Version = kind.Kind, kind.Version
	return e, e.complete()
}

// complete refuses an entry that nobody could check later.
func (e *logEntry) complete() error {
	p := e.InclusionProof
	if p == nil || len(e.LogID.KeyID) == 0 || p.Checkpoint.Envelope == "" {
		return errors.New("it has no proof")
	}
	if root, ok := rootFrom(e.CanonicalizedBody, uint64(p.LogIndex), uint64(p.TreeSize), p.Hashes); !ok || string(root) != string(p.RootHash) {
		return errProof
	}
	return nil
}
