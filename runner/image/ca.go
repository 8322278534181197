package image

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
)

// buildDir is where a build finds the certificates that it may trust. Nothing in it stays in the image.
const buildDir = ".agent-sandbox-build"

// caVariables name a file of all trusted certificates to the programs that load things during a build. As ARG they are
// there for RUN, and not in the image.
func caVariables() []string {
	return []string{
		"SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CARGO_HTTP_CAINFO",
		"NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE", "DENO_CERT", "NIX_SSL_CERT_FILE",
	}
}

// trust makes every stage of a Dockerfile trust extra certificates: they, and those of the system that come with them, are
// copied from the context, and are gone from the result when it is normalised.
func (in *Inputs) trust(extra, system []byte) (dockerfile []byte, files []extraFile) {
	if len(extra) == 0 {
		return in.built.source, nil
	}
	bundle := "/" + buildDir + "/ca.pem"
	var b strings.Builder
	fmt.Fprintf(&b, "COPY %s-ca.pem %s\n", buildDir, bundle)
	fmt.Fprintf(&b, "COPY %s-apt.conf /%s/apt.conf\n", buildDir, buildDir)
	for _, name := range caVariables() {
		fmt.Fprintf(&b, "ARG %s=%s\n", name, bundle)
	}
	fmt.Fprintf(&b, "ARG APT_CONFIG=/%s/apt.conf\n", buildDir)
	// No --chmod: that is BuildKit's alone. The context's modes are readable for all.
	return in.built.withAfterFrom(b.String()), []extraFile{
		{buildDir + "-ca.pem", slices.Concat(system, []byte("\n"), extra)},
		{buildDir + "-apt.conf", fmt.Appendf(nil, "Acquire::https::CaInfo %q;\n", bundle)},
	}
}

// secrets are what would show in an image that had these certificates in it: the middle of each one's text.
func secrets(extra []byte) [][]byte {
	var out [][]byte
	for rest := extra; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return out
		}
		out = append(out, block.Bytes)
		text := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})
		lines := bytes.Split(text, []byte("\n"))
		if len(lines) > 4 {
			out = append(out, lines[len(lines)/2])
		}
	}
}
