// Reference verifies a sigstore bundle with sigstore-go: reference BUNDLE TRUSTED_ROOT SUBJECT ISSUER SHA256. With one argument it prints
// the entry that Rekor of the first version makes of a request: the server would need a database. For tests.
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/go-openapi/runtime"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	_ "github.com/sigstore/rekor/pkg/types/dsse/v0.0.1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

func main() {
	do := check
	if len(os.Args) == 2 {
		do = entry
	}
	if err := do(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

// entry does what Rekor's handler does with the body of a request, signature and all.
func entry(args []string) error {
	file, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer file.Close()
	proposed, err := models.UnmarshalProposedEntry(file, runtime.JSONConsumer())
	if err != nil {
		return err
	}
	made, err := types.CreateVersionedEntry(proposed)
	if err != nil {
		return err
	}
	body, err := types.CanonicalizeEntry(context.Background(), made)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(body)
	return err
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
