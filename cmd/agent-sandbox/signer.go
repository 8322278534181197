package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"golang.org/x/term"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/actions"
	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/secret"
)

// The variables that say how manifests are signed. The key's may hold the key itself, as CI has secrets.
const (
	signingKeyVariable        = "AGENT_SANDBOX_SIGNING_KEY"
	signingPassphraseVariable = "AGENT_SANDBOX_SIGNING_PASSPHRASE"
	fulcioVariable            = "AGENT_SANDBOX_FULCIO_URL"
	timestampVariable         = "AGENT_SANDBOX_TIMESTAMP_URL"
	rekorVariable             = "AGENT_SANDBOX_REKOR_URL"
	attestationsVariable      = "AGENT_SANDBOX_ATTESTATIONS_TOKEN"
)

// nameKey mends a manifest that nobody signs.
const nameKey = "make a key with `agent-sandbox manifest keygen` and name it in " + signingKeyVariable

// maxSigningKey bounds the file of a key in bytes.
const maxSigningKey = 64 << 10

// signer is who signs a run's manifest, by the policy's evidence.sign. What is known not to work is refused before the run.
func (a *app) signer(p *policy.Policy, keyFile string) (manifest.Signer, error) {
	return a.signerOf(p, keyFile, true)
}

// signerOf is signer; without ask nobody is asked for the passphrase of a key.
func (a *app) signerOf(p *policy.Policy, keyFile string, ask bool) (manifest.Signer, error) {
	key := cmp.Or(keyFile, a.env(signingKeyVariable))
	switch p.Evidence.Sign {
	case "none":
		return manifest.Unsigned{Why: "the policy says evidence.sign: none"}, nil
	case "keyless":
		id := actions.IdentityFromEnv(a.lookupEnv)
		if id == nil {
			return nil, &runner.RefusedError{
				Reason: "the policy says evidence.sign: keyless, and this process has no identity to sign with",
				Hint:   "in a workflow of GitHub Actions give the job `permissions: {id-token: write}`, which pull requests from forks never get; elsewhere use evidence.sign: key",
			}
		}
		return a.keyless(id)
	case "key":
		if key == "" {
			return nil, &runner.RefusedError{
				Reason: "the policy says evidence.sign: key, and no key is named",
				Hint:   "make one with `agent-sandbox manifest keygen`, and name it with --sign-key or " + signingKeyVariable,
			}
		}
		return a.keySigner(key, ask)
	}
	switch id := actions.IdentityFromEnv(a.lookupEnv); {
	case id != nil && (!isLocal(id.URL) || a.env(fulcioVariable) != ""):
		return a.keylessOrKey(id, key, ask)
	case key != "":
		return a.keySigner(key, ask)
	case id != nil:
		return manifest.Unsigned{Why: "the job's identity is a local one, which no public service knows; " + nameKey}, nil
	}
	return manifest.Unsigned{Why: "there is neither a key nor a job's identity to sign with; " + nameKey + ", or give a job on GitHub `permissions: {id-token: write}`"}, nil
}

// keylessOrKey signs by the job's identity, and with a key, if there is one, when the services can't be had.
func (a *app) keylessOrKey(id *actions.Identity, key string, ask bool) (manifest.Signer, error) {
	first, err := a.keyless(id)
	if err != nil || key == "" {
		return first, err
	}
	second, err := a.keySigner(key, ask)
	if err != nil {
		return nil, err
	}
	return &manifest.FallbackSigner{First: first, Second: &manifest.FallbackSigner{First: second, Second: second.Untimed()}}, nil
}

func (a *app) keyless(id *actions.Identity) (manifest.Signer, error) {
	s := &manifest.KeylessSigner{Token: id.IDToken}
	if u := a.env(rekorVariable); u != "" {
		log, err := manifest.NewRekor(u)
		if err != nil {
			return nil, usage("%s: %w", rekorVariable, err)
		}
		s.Instance.Log = log
	}
	if fulcio := a.env(fulcioVariable); fulcio != "" {
		s.Instance.Fulcio, s.Instance.Time = fulcio, a.timestamps()
		if err := s.Instance.Check(); err != nil {
			return nil, usage("%s is set: %w\nhint: set %s, or %s to a log of the first version", fulcioVariable, err, timestampVariable, rekorVariable)
		}
	}
	return s, nil
}

// timestamps is the authority that the environment names, nil if it names none.
func (a *app) timestamps() *manifest.TimestampAuthority {
	if u := a.env(timestampVariable); u != "" {
		return &manifest.TimestampAuthority{URL: u}
	}
	return nil
}

// isLocal tells the issuer of `dev oidc` from GitHub's.
func isLocal(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// keySigner reads a key: a file, or the key itself. It asks for a passphrase only where somebody can be asked.
func (a *app) keySigner(key string, ask bool) (*manifest.KeySigner, error) {
	text, name := []byte(key), signingKeyVariable
	if !strings.HasPrefix(strings.TrimSpace(key), "-----BEGIN ") {
		var err error
		if text, err = readLimited(key, maxSigningKey); err != nil {
			return nil, usage("signing key: %w", err)
		}
		name = key
	}
	phrase := secret.New(a.env(signingPassphraseVariable))
	if manifest.KeyIsEncrypted(text) && phrase.IsEmpty() && ask && a.isTerminal(a.stdin) && a.isTerminal(a.stderr) {
		var err error
		if phrase, err = a.askSecret("Passphrase of " + displayPath(name) + ": "); err != nil {
			return nil, err
		}
	}
	private, err := manifest.ParsePrivateKey(text, phrase)
	if errors.Is(err, manifest.ErrPassphrase) { // before there is an agent, and on record: the run would have ended without a signature
		return nil, &runner.RefusedError{
			Reason: fmt.Sprintf("signing key %s: %v", name, err),
			Hint:   "set " + signingPassphraseVariable + " to the key's passphrase, or make another key with `agent-sandbox manifest keygen`",
		}
	}
	if err != nil {
		return nil, usage("signing key %s: %w\nhint: `agent-sandbox manifest keygen` makes one", name, err)
	}
	return manifest.NewKeySigner(private, a.timestamps())
}

func (a *app) askSecret(question string) (secret.Value, error) {
	fmt.Fprint(a.stderr, question)
	b, err := term.ReadPassword(int(a.stdin.Fd()))
	fmt.Fprintln(a.stderr)
	return secret.New(string(b)), err
}

// sealer is for the record of a run whose runner died: it is signed if a key is at hand, and nobody is asked for one.
func (a *app) sealer() runner.Sealer {
	key := a.env(signingKeyVariable)
	if key == "" {
		return runner.Sealer{Signer: manifest.Unsigned{Why: "the runner died, and who found the run has no key; " + nameKey}}
	}
	s, err := a.keySigner(key, false)
	if err != nil {
		return runner.Sealer{Signer: manifest.Unsigned{Why: err.Error()}}
	}
	return runner.Sealer{Signer: s}
}
