package runnertest

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strconv"
)

// Serve has the log take entries in over HTTP, as Rekor of its version does, and returns the address that they are posted to. It takes the
// kinds that the public logs take of an envelope alone, and checks the signature as they do.
func (r *Rekor) Serve() string {
	r.t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/log/entries", r.take1)
	mux.HandleFunc("POST /api/v2/log/entries", r.take2)
	server := httptest.NewServer(mux)
	r.t.Cleanup(server.Close)
	if r.second {
		return server.URL + "/api/v2/log/entries"
	}
	return server.URL + "/api/v1/log/entries"
}

// take1: https://github.com/sigstore/rekor/blob/main/openapi.yaml.
func (r *Rekor) take1(w http.ResponseWriter, req *http.Request) {
	var ask struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
		Spec    struct {
			Content struct {
				Envelope  string   `json:"envelope"`
				Verifiers [][]byte `json:"verifiers"`
			} `json:"proposedContent"`
		} `json:"spec"`
	}
	var envelope struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			Sig []byte `json:"sig"`
		} `json:"signatures"`
	}
	err := json.NewDecoder(req.Body).Decode(&ask)
	if err != nil || ask.Kind+" "+ask.Version != "dsse 0.0.1" || json.Unmarshal([]byte(ask.Spec.Content.Envelope), &envelope) != nil ||
		len(ask.Spec.Content.Verifiers) != 1 || len(envelope.Signatures) != 1 || r.second {
		http.Error(w, `{"code":400,"message":"no entry"}`, http.StatusBadRequest)
		return
	}
	block, _ := pem.Decode(ask.Spec.Content.Verifiers[0])
	sig, message := envelope.Signatures[0].Sig, pae(envelope.PayloadType, envelope.Payload)
	if block == nil || !signedBy(block.Bytes, message, sig) {
		http.Error(w, `{"code":400,"message":"the signature does not fit"}`, http.StatusBadRequest)
		return
	}
	e, index := r.add(w, "dsse 0.0.1", entryBody("dsse 0.0.1", []byte(ask.Spec.Content.Envelope), envelope.PayloadType, envelope.Payload, sig, &logSigner{certificate: block.Bytes}))
	if e == nil {
		return
	}
	proof := e["inclusionProof"].(map[string]any)
	hashes := []string{}
	for _, h := range proof["hashes"].([][]byte) {
		hashes = append(hashes, hex.EncodeToString(h))
	}
	at, _ := strconv.ParseInt(e["integratedTime"].(string), 10, 64)
	size, _ := strconv.Atoi(proof["treeSize"].(string))
	writeJSON(w, http.StatusCreated, map[string]any{"24296fb24b8ad77a" + strconv.Itoa(index): map[string]any{
		"body": e["canonicalizedBody"], "integratedTime": at, "logID": hex.EncodeToString(r.id()), "logIndex": index,
		"verification": map[string]any{
			"signedEntryTimestamp": e["inclusionPromise"].(map[string][]byte)["signedEntryTimestamp"],
			"inclusionProof": map[string]any{
				"checkpoint": proof["checkpoint"].(map[string]string)["envelope"], "hashes": hashes, "logIndex": index,
				"rootHash": hex.EncodeToString(proof["rootHash"].([]byte)), "treeSize": size,
			},
		},
	}})
}

// take2: https://github.com/sigstore/rekor-tiles/blob/main/CLIENTS.md.
func (r *Rekor) take2(w http.ResponseWriter, req *http.Request) {
	var ask struct {
		Request *struct {
			Digest    []byte `json:"digest"`
			Signature struct {
				Content  []byte `json:"content"`
				Verifier struct {
					Certificate *struct {
						RawBytes []byte `json:"rawBytes"`
					} `json:"x509Certificate"`
					KeyDetails string `json:"keyDetails"`
				} `json:"verifier"`
			} `json:"signature"`
		} `json:"hashedRekordRequestV002"`
	}
	d := json.NewDecoder(req.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&ask); err != nil || ask.Request == nil || ask.Request.Signature.Verifier.Certificate == nil ||
		ask.Request.Signature.Verifier.KeyDetails != "PKIX_ECDSA_P256_SHA_256" || len(ask.Request.Digest) != sha256.Size || !r.second {
		http.Error(w, `{"code":3,"message":"invalid type, must be hashedrekord"}`, http.StatusBadRequest)
		return
	}
	s := ask.Request.Signature
	body := hashedBody2([sha256.Size]byte(ask.Request.Digest), s.Content, &logSigner{certificate: s.Verifier.Certificate.RawBytes})
	if e, _ := r.add(w, "hashedrekord 0.0.2", body); e != nil {
		delete(e, "inclusionPromise")
		writeJSON(w, http.StatusCreated, e)
	}
}

// add takes one in, unless the log has it.
func (r *Rekor) add(w http.ResponseWriter, kind string, body map[string]any) (entry map[string]any, index int) {
	leaf, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return nil, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Deaf {
		r.Deaf = false
		r.leaves = append(r.leaves, leaf)
	}
	for _, old := range r.leaves {
		if string(old) == string(leaf) {
			http.Error(w, `{"code":409,"message":"an equivalent entry already exists"}`, http.StatusConflict)
			return nil, 0
		}
	}
	r.leaves = append(r.leaves, leaf)
	return r.entry(kind, len(r.leaves)-1), len(r.leaves) - 1
}

// signedBy is about a certificate with an ECDSA key, which is what the job's signer has.
func signedBy(certificate, message, sig []byte) bool {
	c, err := x509.ParseCertificate(certificate)
	return err == nil && c.CheckSignature(x509.ECDSAWithSHA256, message, sig) == nil
}

func hashedBody2(sum [sha256.Size]byte, sig []byte, signer *logSigner) map[string]any {
	return map[string]any{"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": map[string]any{"hashedRekordV002": map[string]any{
		"data":      map[string]any{"algorithm": "SHA2_256", "digest": base64.StdEncoding.EncodeToString(sum[:])},
		"signature": map[string]any{"content": sig, "verifier": signer.raw()},
	}}}
}
