package runnertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/bits"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Rekor is a log of signatures: a Merkle tree (RFC 6962) whose root it signs. The first version also promises with a time to take an
// entry in; the second does not.
type Rekor struct {
	Name string
	// Deaf has the next entry that is posted taken in, and told that it is there already: its first answer got lost.
	Deaf bool

	t      testing.TB
	now    func() time.Time
	key    crypto.Signer
	second bool
	mu     sync.Mutex // of what follows, while the log is served
	leaves [][]byte
}

// NewRekor is a log with some entries.
func NewRekor(t testing.TB, now func() time.Time, second bool) *Rekor {
	t.Helper()
	r := &Rekor{t: t, now: now, second: second, Name: "rekor.test"}
	var err error
	if second {
		_, r.key, err = ed25519.GenerateKey(rand.Reader)
		r.Name = "log2.rekor.test"
	} else {
		r.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		r.leaves = append(r.leaves, []byte("entry "+strconv.Itoa(i)))
	}
	return r
}

// publicDER is the log's key.
func (r *Rekor) publicDER() []byte {
	r.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(r.key.Public())
	if err != nil {
		r.t.Fatal(err)
	}
	return der
}

// id is the log's name in bundles: the digest of its key, and in the second version that of its name and its key
// (https://github.com/C2SP/C2SP/blob/main/signed-note.md).
func (r *Rekor) id() []byte {
	input := r.publicDER()
	if public, ok := r.key.Public().(ed25519.PublicKey); ok {
		input = append([]byte(r.Name+"\n\x01"), public...)
	}
	sum := sha256.Sum256(input)
	return sum[:]
}

// trusted is the log's item in a trusted root.
func (r *Rekor) trusted() map[string]any {
	details := "PKIX_ECDSA_P256_SHA_256"
	if r.second {
		details = "PKIX_ED25519"
	}
	return map[string]any{
		"baseUrl": "https://" + r.Name, "hashAlgorithm": "SHA2_256", "logId": map[string][]byte{"keyId": r.id()},
		"publicKey": map[string]any{
			"rawBytes": r.publicDER(), "keyDetails": details, "validFor": map[string]time.Time{"start": r.now().AddDate(-1, 0, 0)},
		},
	}
}

// LogKinds are the kinds of entries that a log can have of an envelope.
func LogKinds(second bool) []string {
	if second {
		return []string{"dsse 0.0.2", "hashedrekord 0.0.2"}
	}
	return []string{"dsse 0.0.1", "intoto 0.0.2", "hashedrekord 0.0.1"}
}

// Log takes the signature of a bundle in, and adds the entry to the bundle. public is the key in PEM, if the bundle has no certificate.
func (r *Rekor) Log(bundle []byte, kind string, public []byte) []byte {
	r.t.Helper()
	var b struct {
		MediaType string         `json:"mediaType"`
		Material  map[string]any `json:"verificationMaterial"`
		Envelope  struct {
			Payload     []byte `json:"payload"`
			PayloadType string `json:"payloadType"`
			Signatures  []struct {
				Sig []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(bundle, &b); err != nil {
		r.t.Fatal(err)
	}
	signer := &logSigner{public: public}
	if c, ok := b.Material["certificate"].(map[string]any); ok {
		der, err := base64.StdEncoding.DecodeString(c["rawBytes"].(string))
		if err != nil {
			r.t.Fatal(err)
		}
		signer.certificate = der
	}
	body, err := json.Marshal(entryBody(kind, nil, b.Envelope.PayloadType, b.Envelope.Payload, b.Envelope.Signatures[0].Sig, signer))
	if err != nil {
		r.t.Fatal(err)
	}
	r.leaves = append(r.leaves, body, []byte("a later entry"))
	b.Material["tlogEntries"] = []any{r.entry(kind, len(r.leaves)-2)}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(bundle, &whole); err != nil {
		r.t.Fatal(err)
	}
	if whole["verificationMaterial"], err = json.Marshal(b.Material); err != nil {
		r.t.Fatal(err)
	}
	out, err := json.Marshal(whole)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// entry is one as bundles have it.
func (r *Rekor) entry(kind string, index int) map[string]any {
	name, version := splitKind(kind)
	root := treeRoot(r.leaves)
	hashes := [][]byte{}
	hashes = append(hashes, treePath(r.leaves, index)...)
	e := map[string]any{
		"logIndex": strconv.Itoa(index), "logId": map[string][]byte{"keyId": r.id()}, "kindVersion": map[string]string{"kind": name, "version": version},
		"canonicalizedBody": r.leaves[index],
		"inclusionProof": map[string]any{
			"logIndex": strconv.Itoa(index), "rootHash": root, "treeSize": strconv.Itoa(len(r.leaves)), "hashes": hashes,
			"checkpoint": map[string]string{"envelope": r.checkpoint(root)},
		},
	}
	if !r.second {
		at := r.now().Unix()
		text := fmt.Sprintf(`{"body":"%s","integratedTime":%d,"logID":"%x","logIndex":%d}`, base64.StdEncoding.EncodeToString(r.leaves[index]), at, r.id(), index)
		e["integratedTime"] = strconv.FormatInt(at, 10)
		e["inclusionPromise"] = map[string][]byte{"signedEntryTimestamp": r.sign(text)}
	}
	return e
}

// checkpoint is a signed note.
func (r *Rekor) checkpoint(root []byte) string {
	origin := r.Name
	if !r.second {
		origin += " - 1193050959916656506" // the part of the log that this tree is
	}
	text := fmt.Sprintf("%s\n%d\n%s\n", origin, len(r.leaves), base64.StdEncoding.EncodeToString(root))
	return text + "\n\u2014 " + r.Name + " " + base64.StdEncoding.EncodeToString(append(r.id()[:4:4], r.sign(text)...)) + "\n"
}

func (r *Rekor) sign(text string) []byte {
	r.t.Helper()
	message, hash := []byte(text), crypto.Hash(0)
	if !r.second {
		sum := sha256.Sum256(message)
		message, hash = sum[:], crypto.SHA256
	}
	sig, err := r.key.Sign(rand.Reader, message, hash)
	if err != nil {
		r.t.Fatal(err)
	}
	return sig
}

// logSigner is a certificate in DER, or else a key in PEM.
type logSigner struct{ certificate, public []byte }

func (s *logSigner) pem() []byte {
	if s.certificate == nil {
		return s.public
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.certificate})
}

func (s *logSigner) raw() map[string]any {
	details := map[string]any{"keyDetails": "PKIX_ECDSA_P256_SHA_256"}
	if s.certificate != nil {
		details["x509Certificate"] = map[string][]byte{"rawBytes": s.certificate}
		return details
	}
	block, _ := pem.Decode(s.public)
	details["publicKey"] = map[string][]byte{"rawBytes": block.Bytes}
	return details
}

func splitKind(kind string) (name, version string) {
	_, _ = fmt.Sscan(kind, &name, &version)
	return name, version
}

// pae is what DSSE signs.
func pae(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// entryBody is what the log has of an envelope, of which whole is the file; see the schemas of Rekor's types.
func entryBody(kind string, whole []byte, payloadType string, payload, sig []byte, signer *logSigner) map[string]any {
	type object = map[string]any
	ofPayload, ofMessage := sha256.Sum256(payload), sha256.Sum256(pae(payloadType, payload))
	inHex := func(sum [sha256.Size]byte) object {
		return object{"algorithm": "sha256", "value": fmt.Sprintf("%x", sum)}
	}
	raw := func(sum [sha256.Size]byte) object { return object{"algorithm": "SHA2_256", "digest": sum[:]} }
	var spec object
	switch kind {
	case "dsse 0.0.1":
		spec = object{"envelopeHash": inHex(sha256.Sum256(whole)), "payloadHash": inHex(ofPayload), "signatures": []object{{"signature": sig, "verifier": signer.pem()}}}
	case "intoto 0.0.2":
		twice := []byte(base64.StdEncoding.EncodeToString(sig))
		spec = object{"content": object{
			"envelope": object{"payloadType": payloadType, "signatures": []object{{"publicKey": signer.pem(), "sig": twice}}},
			"hash":     inHex(ofMessage), "payloadHash": inHex(ofPayload),
		}}
	case "hashedrekord 0.0.1":
		spec = object{"data": object{"hash": inHex(ofMessage)}, "signature": object{"content": sig, "publicKey": object{"content": signer.pem()}}}
	case "dsse 0.0.2":
		spec = object{"dsseV002": object{"payloadHash": raw(ofPayload), "signatures": []object{{"content": sig, "verifier": signer.raw()}}}}
	case "hashedrekord 0.0.2":
		return hashedBody2(ofMessage, sig, signer)
	default:
		panic("runnertest: no kind of entry: " + kind)
	}
	name, version := splitKind(kind)
	return object{"apiVersion": version, "kind": name, "spec": spec}
}

// treeRoot and treePath are the definitions of RFC 6962, sections 2.1 and 2.1.1, word for word.
func treeRoot(leaves [][]byte) []byte {
	if len(leaves) == 1 {
		sum := sha256.Sum256(append([]byte{0}, leaves[0]...))
		return sum[:]
	}
	k := splitAt(len(leaves))
	sum := sha256.Sum256(append(append([]byte{1}, treeRoot(leaves[:k])...), treeRoot(leaves[k:])...))
	return sum[:]
}

func treePath(leaves [][]byte, m int) [][]byte {
	if len(leaves) == 1 {
		return nil
	}
	k := splitAt(len(leaves))
	if m < k {
		return append(treePath(leaves[:k], m), treeRoot(leaves[k:]))
	}
	return append(treePath(leaves[k:], m-k), treeRoot(leaves[:k]))
}

// splitAt is the largest power of two below n.
func splitAt(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }
