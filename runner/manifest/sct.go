package manifest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ctLog is a log of certificates (RFC 6962). Its word that it has a certificate is a signed certificate timestamp, SCT.
type ctLog struct {
	id    [sha256.Size]byte // of its key
	key   *ecdsa.PublicKey
	from  time.Time
	until time.Time // zero: until now
}

// oidSCT is the extension of a certificate that has its SCTs (RFC 6962, section 3.3).
var oidSCT = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}

// maxSCTs bounds the work on a certificate.
const maxSCTs = 8

var errSCT = errors.New("the certificate's list of signed certificate timestamps can't be read")

// sct is one SCT (RFC 6962, section 3.2).
type sct struct {
	log        []byte
	at         uint64 // milliseconds since 1970
	extensions []byte
	signature  []byte // ECDSA with SHA-256; nil: of another kind
}

// logged says whether one of the logs vouches that it has the certificate, which issuer issued.
func logged(leaf, issuer *x509.Certificate, logs []ctLog) bool {
	tbs, list, err := withoutSCTs(leaf.RawTBSCertificate)
	if err != nil {
		return false
	}
	all, err := parseSCTs(list)
	if err != nil {
		return false
	}
	for _, s := range all {
		at := time.UnixMilli(int64(s.at))
		for _, l := range logs {
			if bytes.Equal(l.id[:], s.log) && !at.Before(l.from) && (l.until.IsZero() || !at.After(l.until)) && s.by(l, tbs, issuer) {
				return true
			}
		}
	}
	return false
}

// by checks the log's signature: over the certificate as it was before the SCTs came into it, and over who issued it.
func (s sct) by(l ctLog, tbs []byte, issuer *x509.Certificate) bool {
	const version1, certificateTimestamp, precertificate = 0, 0, 1
	issuerKey := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	var b cryptobyte.Builder
	b.AddUint8(version1)
	b.AddUint8(certificateTimestamp)
	b.AddUint64(s.at)
	b.AddUint16(precertificate)
	b.AddBytes(issuerKey[:])
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(tbs) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(s.extensions) })
	signed, err := b.Bytes()
	if err != nil {
		return false
	}
	sum := sha256.Sum256(signed)
	return s.signature != nil && ecdsa.VerifyASN1(l.key, sum[:], s.signature)
}

func parseSCTs(list []byte) ([]sct, error) {
	var all []sct
	in, rest := cryptobyte.String(list), cryptobyte.String(nil)
	if !in.ReadUint16LengthPrefixed(&rest) || !in.Empty() {
		return nil, errSCT
	}
	for !rest.Empty() {
		var one cryptobyte.String
		if len(all) == maxSCTs || !rest.ReadUint16LengthPrefixed(&one) {
			return nil, errSCT
		}
		s, err := parseSCT(one)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func parseSCT(in cryptobyte.String) (s sct, err error) {
	const sha256Hash, ecdsaSignature = 4, 3 // RFC 5246, section 7.4.1.4.1
	var version, hash, algorithm uint8
	var extensions, signature cryptobyte.String
	ok := in.ReadUint8(&version) && in.ReadBytes(&s.log, sha256.Size) && in.ReadUint64(&s.at) && in.ReadUint16LengthPrefixed(&extensions) &&
		in.ReadUint8(&hash) && in.ReadUint8(&algorithm) && in.ReadUint16LengthPrefixed(&signature) && in.Empty()
	if !ok || version != 0 {
		return s, errSCT
	}
	s.extensions = extensions
	if hash == sha256Hash && algorithm == ecdsaSignature {
		s.signature = signature
	}
	return s, nil
}

// withoutSCTs takes the SCTs out of the signed part of a certificate: what is left is what the log signed.
func withoutSCTs(tbs []byte) (rest, list []byte, err error) {
	in, body := cryptobyte.String(tbs), cryptobyte.String(nil)
	if !in.ReadASN1(&body, cryptobyteasn1.SEQUENCE) || !in.Empty() {
		return nil, nil, errSCT
	}
	extensions := cryptobyteasn1.Tag(3).ContextSpecific().Constructed()
	var b cryptobyte.Builder
	b.AddASN1(cryptobyteasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for !body.Empty() && err == nil {
			var element cryptobyte.String
			var tag cryptobyteasn1.Tag
			if !body.ReadAnyASN1Element(&element, &tag) {
				err = errSCT
				return
			}
			if tag != extensions {
				b.AddBytes(element)
				continue
			}
			b.AddASN1(extensions, func(b *cryptobyte.Builder) {
				b.AddASN1(cryptobyteasn1.SEQUENCE, func(b *cryptobyte.Builder) { list, err = copyExtensions(b, element, extensions) })
			})
		}
	})
	rest, buildErr := b.Bytes()
	if err = errors.Join(err, buildErr); err == nil && list == nil {
		err = errSCT
	}
	return rest, list, err
}

// copyExtensions copies all extensions but the one with the SCTs, whose list it returns.
func copyExtensions(b *cryptobyte.Builder, element cryptobyte.String, tag cryptobyteasn1.Tag) (list []byte, err error) {
	var outer, all cryptobyte.String
	if !element.ReadASN1(&outer, tag) || !outer.ReadASN1(&all, cryptobyteasn1.SEQUENCE) {
		return nil, errSCT
	}
	for !all.Empty() {
		var one cryptobyte.String
		if !all.ReadASN1Element(&one, cryptobyteasn1.SEQUENCE) {
			return nil, errSCT
		}
		whole, body, id := []byte(one), cryptobyte.String(nil), asn1.ObjectIdentifier{}
		if !one.ReadASN1(&body, cryptobyteasn1.SEQUENCE) || !body.ReadASN1ObjectIdentifier(&id) {
			return nil, errSCT
		}
		if !id.Equal(oidSCT) {
			b.AddBytes(whole)
			continue
		}
		var value, inner cryptobyte.String
		if list != nil || !body.SkipOptionalASN1(cryptobyteasn1.BOOLEAN) || !body.ReadASN1(&value, cryptobyteasn1.OCTET_STRING) || !value.ReadASN1(&inner, cryptobyteasn1.OCTET_STRING) {
			return nil, errSCT
		}
		list = inner
	}
	return list, nil
}
