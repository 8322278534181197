package manifest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/youmark/pkcs8"

	"github.com/org/agent-sandbox/runner/secret"
)

// The blocks of PEM files.
const (
	pemPublic    = "PUBLIC KEY"
	pemPlain     = "PRIVATE KEY"
	pemEncrypted = "ENCRYPTED PRIVATE KEY"          // PKCS#8 with PBES2, as openssl writes it
	pemSigstore  = "ENCRYPTED SIGSTORE PRIVATE KEY" // as `cosign generate-key-pair` writes it
	pemCosign    = "ENCRYPTED COSIGN PRIVATE KEY"   // the same, from older versions
)

// maxKeyFile bounds a key's file in bytes.
const maxKeyFile = 64 << 10

// ErrPassphrase tells that a private key is encrypted, and the passphrase is missing or wrong.
var ErrPassphrase = errors.New("the key is encrypted, and the passphrase is missing or wrong")

// NewKey makes a private key: ed25519, or ECDSA on P-256 or P-384.
func NewKey(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case "ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case "ecdsa-p256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa-p384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return nil, fmt.Errorf("algorithm %q: want ed25519, ecdsa-p256 or ecdsa-p384", algorithm)
}

// EncodeKey gives the PEM files of a private key, encrypted if there is a passphrase, and of its public key.
func EncodeKey(key crypto.Signer, passphrase secret.Value) (private, public []byte, err error) {
	block := &pem.Block{Type: pemPlain}
	if passphrase.IsEmpty() {
		block.Bytes, err = x509.MarshalPKCS8PrivateKey(key)
	} else {
		block.Type = pemEncrypted
		// What every openssl since 1.1 reads; the count is OWASP's for PBKDF2 with SHA-256.
		block.Bytes, err = pkcs8.MarshalPrivateKey(key, []byte(passphrase.Reveal()), &pkcs8.Opts{
			Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 16, IterationCount: 600_000, HMACHash: crypto.SHA256},
		})
	}
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(block), pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: spki}), nil
}

// KeyIsEncrypted tells whether a private key's file needs a passphrase.
func KeyIsEncrypted(file []byte) bool {
	block, _ := pem.Decode(file)
	return block != nil && (block.Type == pemEncrypted || block.Type == pemSigstore || block.Type == pemCosign)
}

// ParsePrivateKey reads a private key: PKCS#8 in PEM, plain, encrypted as openssl does it, or as cosign does.
func ParsePrivateKey(file []byte, passphrase secret.Value) (crypto.Signer, error) {
	block, err := onePEM(file)
	if err != nil {
		return nil, err
	}
	var der []byte
	var parsed any
	switch block.Type {
	case pemPlain:
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case pemEncrypted:
		if passphrase.IsEmpty() {
			return nil, ErrPassphrase
		}
		// The library does not tell a wrong passphrase from a damaged file, nor can it always.
		if parsed, _, err = pkcs8.ParsePrivateKey(block.Bytes, []byte(passphrase.Reveal())); err != nil {
			return nil, ErrPassphrase
		}
	case pemSigstore, pemCosign:
		if der, err = encrypted.Decrypt(block.Bytes, []byte(passphrase.Reveal())); err != nil {
			return nil, ErrPassphrase
		}
		parsed, err = x509.ParsePKCS8PrivateKey(der)
	default:
		return nil, fmt.Errorf("it has a %q, not a private key in PKCS#8", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("private key: %v", err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errNotOurs
	}
	if _, err := hashOf(key.Public()); err != nil {
		return nil, err
	}
	return key, nil
}

// ParsePublicKey reads a public key in PEM.
func ParsePublicKey(file []byte) (crypto.PublicKey, error) {
	block, err := onePEM(file)
	if err != nil {
		return nil, err
	}
	if block.Type != pemPublic {
		return nil, fmt.Errorf("it has a %q, not a public key", block.Type)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("public key: %v", err)
	}
	if _, err := hashOf(key); err != nil {
		return nil, err
	}
	return key, nil
}

func onePEM(file []byte) (*pem.Block, error) {
	if len(file) > maxKeyFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxKeyFile)
	}
	block, rest := pem.Decode(file)
	if block == nil {
		return nil, errors.New("it is no PEM file")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, errors.New("it has more than one PEM block")
	}
	return block, nil
}

var errNotOurs = errors.New("the key is neither ed25519 nor ECDSA on P-256 or P-384")

// hashOf is the hash that goes with a key; 0 for ed25519, which hashes by itself. There is one for each kind of key, so
// that a signature can't ask for a weaker one.
func hashOf(key crypto.PublicKey) (crypto.Hash, error) {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return 0, nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return crypto.SHA256, nil
		case elliptic.P384():
			return crypto.SHA384, nil
		}
	}
	return 0, errNotOurs
}

// KeyID is the name of a public key: the hex SHA-256 of its DER. It helps to find the key, and proves nothing.
func KeyID(key crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("key id: %w", err)
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:]), nil
}
