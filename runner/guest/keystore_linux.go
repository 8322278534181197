package guest

import (
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"

	"github.com/org/agent-sandbox/runner/link"
)

// The key store format of Java before 9, which every version since reads as well (sun.security.provider.JavaKeyStore).
// Unlike PKCS #12 it holds trusted certificates without encryption. Its SHA-1 is a checksum: the password is public.
const (
	storeMagic   = 0xfeedfeed
	storeVersion = 2
	privateEntry = 1
	trustedEntry = 2
	// storeWhitener comes between password and content (the same class, getPreKeyedHash).
	storeWhitener = "Mighty Aphrodite"
	certType      = "X.509"
)

// keyStore is a key store that trusts certs.
func keyStore(certs [][]byte) []byte {
	var b []byte
	text := func(s string) {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	b = binary.BigEndian.AppendUint32(b, storeMagic)
	b = binary.BigEndian.AppendUint32(b, storeVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(certs)))
	for i, der := range certs {
		b = binary.BigEndian.AppendUint32(b, trustedEntry)
		text(fmt.Sprintf("sandbox-%d", i))
		b = binary.BigEndian.AppendUint64(b, 0) // when it was added, which nobody asks for
		text(certType)
		b = binary.BigEndian.AppendUint32(b, uint32(len(der)))
		b = append(b, der...)
	}
	sum := storeSum(b)
	return append(b, sum[:]...)
}

func storeSum(content []byte) [sha1.Size]byte {
	var b []byte
	for _, c := range utf16.Encode([]rune(link.StorePassword)) {
		b = binary.BigEndian.AppendUint16(b, c)
	}
	return sha1.Sum(append(append(b, storeWhitener...), content...))
}

func isKeyStore(b []byte) bool {
	return len(b) >= 4 && binary.BigEndian.Uint32(b) == storeMagic
}

var errKeyStore = errors.New("a broken Java key store")

// readKeyStore finds the trusted certificates of a key store. Its checksum can't be checked without its password, and
// says nothing that matters here.
func readKeyStore(content []byte) ([][]byte, error) {
	r := &storeReader{rest: content}
	r.number() // the magic number
	version, count := r.number(), r.number()
	if version != 1 && version != storeVersion {
		return nil, fmt.Errorf("%w: version %d", errKeyStore, version)
	}
	var certs [][]byte
	for range count {
		tag := r.number()
		r.text() // alias
		r.take(8)
		switch tag {
		case trustedEntry:
			certs = append(certs, r.certificate(version))
		case privateEntry:
			r.take(r.number())
			for n := r.number(); n > 0 && !r.broken; n-- {
				r.certificate(version)
			}
		default:
			r.broken = true
		}
		if r.broken {
			return nil, errKeyStore
		}
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return certs, nil
}

// storeReader reads what is left, until it is broken.
type storeReader struct {
	rest   []byte
	broken bool
}

func (r *storeReader) take(n uint32) []byte {
	if r.broken || uint64(n) > uint64(len(r.rest)) {
		r.broken = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *storeReader) number() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *storeReader) text() {
	if b := r.take(2); b != nil {
		r.take(uint32(binary.BigEndian.Uint16(b)))
	}
}

func (r *storeReader) certificate(version uint32) []byte {
	if version == storeVersion {
		r.text() // its type
	}
	der := r.take(r.number())
	if len(firstElement(der)) != len(der) || len(der) == 0 {
		r.broken = true
	}
	return der
}
