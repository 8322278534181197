// Reference verifies a sigstore bundle with sigstore-go: reference BUNDLE TRUSTED_ROOT SUBJECT ISSUER SHA256. For tests.
package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

func main() {
	if err := check(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func check(args []string) error {
	if len(args) != 5 {
		return errors.New("usage: reference BUNDLE TRUSTED_ROOT SUBJECT ISSUER SHA256")
	}
	b, err := bundle.LoadJSONFromPath(args[0])
	if err != nil {
		return err
	}
	material, err := root.NewTrustedRootFromPath(args[1])
	if err != nil {
		return err
	}
	// What the trusted root names has to have its say.
	options := []verify.VerifierOption{verify.WithSignedTimestamps(1)}
	if len(material.RekorLogs()) > 0 {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if len(material.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	v, err := verify.NewVerifier(material, options...)
	if err != nil {
		return err
	}
	id, err := verify.NewShortCertificateIdentity(args[3], "", args[2], "")
	if err != nil {
		return err
	}
	digest, err := hex.DecodeString(args[4])
	if err != nil {
		return err
	}
	_, err = v.Verify(b, verify.NewPolicy(verify.WithArtifactDigest("sha256", digest), verify.WithCertificateIdentity(id)))
	return err
}
