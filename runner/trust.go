package runner

import (
	"path"
	"slices"
	"strings"

	"github.com/org/agent-sandbox/runner/link"
)

// Where the variables point to.
const (
	caPath     = link.FilesDir + "/" + link.CAFile
	bundlePath = link.FilesDir + "/" + link.BundleFile
	storePath  = link.FilesDir + "/" + link.StoreFile
)

// trustVariable is how one kind of program is told which certificates to trust.
type trustVariable struct {
	name  string
	value string
	// merge says which list of the link's Trust takes the file that the variable named before; nil: it is a switch, which
	// stays as somebody has set it.
	merge func(*link.Trust) *[]string
	tools string // what reads it, and what it does there
}

func bundles(t *link.Trust) *[]string { return &t.Bundles }
func extras(t *link.Trust) *[]string  { return &t.Extra }

// trustVariables are set when connections may be intercepted. Those with the bundle replace what a program trusts, so
// that the bundle has to be complete; those with the run's certificate alone add to it.
//
// Not reached are programs that have their list compiled in (webpki-roots of Rust, GraalVM), those that have a database of their
// own (Chromium and Firefox: NSS) and those that know nothing but the image's own list (GnuTLS as a library, busybox wget).
func trustVariables() []trustVariable {
	return []trustVariable{
		{"SSL_CERT_FILE", bundlePath, bundles, "OpenSSL, and so Python's ssl, Ruby, PHP, Perl, .NET; Go; rustls-native-certs; curl; uv; composer"},
		{"CURL_CA_BUNDLE", bundlePath, bundles, "curl, also when it is not built on OpenSSL"},
		{"GIT_SSL_CAINFO", bundlePath, bundles, "git, whose libcurl reads no variable; on Debian it is built on GnuTLS"},
		{"REQUESTS_CA_BUNDLE", bundlePath, bundles, "Python's requests, which brings a list of its own (certifi)"},
		{"PIP_CERT", bundlePath, bundles, "pip, likewise"},
		{"AWS_CA_BUNDLE", bundlePath, bundles, "the AWS command line and SDKs, likewise"},
		{"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", bundlePath, bundles, "gcloud, likewise"},
		{"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", bundlePath, bundles, "gRPC for C++, Python, Ruby, PHP and Node, likewise"},
		{"PERL_LWP_SSL_CA_FILE", bundlePath, bundles, "Perl's LWP, which prefers Mozilla::CA otherwise"},
		{"HEX_CACERTS_PATH", bundlePath, bundles, "hex and mix of Elixir, which bring a list of their own"},
		{"CARGO_HTTP_CAINFO", bundlePath, bundles, "cargo"},
		{"NIX_SSL_CERT_FILE", bundlePath, bundles, "nix, and the programs that it builds, before SSL_CERT_FILE"},
		{"NODE_EXTRA_CA_CERTS", caPath, extras, "Node and Bun: added to the list that is compiled in"},
		{"DENO_CERT", caPath, extras, "Deno: added to its own list"},
		{"NODE_USE_SYSTEM_CA", "1", nil, "Node since 22.19 and 24.6: SSL_CERT_FILE is added as well, so that the image's company certificates count"},
	}
}

// trustSetting is a file of settings for programs that have no variable for a list of certificates.
type trustSetting struct {
	variable string // names the file
	file     string // in link.FilesDir
	usual    string // what the program reads when the variable is not set; empty for nothing that would be lost
	line     string // is added to it
	tools    string
}

func trustSettings() []trustSetting {
	return []trustSetting{
		// wget reads it in place of /etc/wgetrc, and ~/.wgetrc after it all the same (initialize in its init.c).
		{"SYSTEM_WGETRC", "wgetrc", "/etc/wgetrc", "\nca_certificate = " + bundlePath + "\n", "wget, on GnuTLS (Debian) and on OpenSSL"},
		// apt reads it before everything below /etc/apt, which can still say otherwise (apt.conf(5)).
		{"APT_CONFIG", "apt.conf", "", "\nAcquire::https::CaInfo \"" + bundlePath + "\";\n", "apt"},
	}
}

// javaVariable has options for every Java program, whoever starts it. Java says on its error output that it read them.
const javaVariable = "JAVA_TOOL_OPTIONS"

const javaTrustStore = "-Djavax.net.ssl.trustStore"

// trust makes the programs inside trust authority, the run's certificate, in addition to what vars have them trust.
// It comes after everything else that sets variables.
func trust(authority []byte, vars *variables) (*link.Trust, []link.File) {
	t := &link.Trust{CA: authority}
	for _, v := range trustVariables() {
		before := vars.value(v.name)
		if v.merge != nil {
			addPath(v.merge(t), before)
		} else if before != "" {
			continue
		}
		vars.set(v.name, v.value, "sandbox")
	}
	var files []link.File
	for _, s := range trustSettings() {
		after := s.usual
		if v := vars.value(s.variable); v != "" {
			after = v
		}
		files = append(files, link.File{Name: s.file, Content: []byte(s.line), After: after})
		vars.set(s.variable, path.Join(link.FilesDir, s.file), "sandbox")
	}
	before := vars.value(javaVariable)
	for option := range strings.FieldsSeq(before) {
		if store, ok := strings.CutPrefix(option, javaTrustStore+"="); ok {
			addPath(&t.Stores, store)
		}
	}
	ours := []string{javaTrustStore + "=" + storePath, javaTrustStore + "Type=JKS", javaTrustStore + "Password=" + link.StorePassword}
	source := "sandbox"
	if vars.source(javaVariable) == "host" {
		source = "host" // what is there of the host's stays out of the plan
	}
	vars.set(javaVariable, strings.TrimSpace(before+" "+strings.Join(ours, " ")), source) // the last one of a kind counts
	return t, files
}

// addPath adds a file that is named and new.
func addPath(list *[]string, name string) {
	if name != "" && !slices.Contains(*list, name) {
		*list = append(*list, name)
	}
}
