package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner/manifest"
	"github.com/org/agent-sandbox/runner/secret"
)

func (a *app) manifestKeygenCommand() *cobra.Command {
	var algorithm string
	var plain bool
	c := &cobra.Command{
		Use:   "keygen [FILE]",
		Short: "Make a key to sign manifests with",
		Long: `keygen writes a private key to FILE (PKCS#8 in PEM, mode 0600) and its public key to FILE.pub. The private key is encrypted
with the passphrase in ` + signingPassphraseVariable + `, or one that it asks for; --plain leaves it as it is.

Where evidence of many people's runs is signed with one key, that key says no more than that one of them signed: give each
machine its own, and keep the public keys where those who verify get them from you.`,
		Example: `  agent-sandbox manifest keygen signing.pem
  agent-sandbox run --sign-key signing.pem -- make test
  agent-sandbox manifest verify last --key signing.pem.pub`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := "agent-sandbox-signing.pem"
			if len(args) == 1 {
				name = args[0]
			}
			return a.keygen(name, algorithm, plain)
		},
	}
	c.Flags().StringVar(&algorithm, "algorithm", "ecdsa-p256", "ecdsa-p256, ecdsa-p384 or ed25519")
	c.Flags().BoolVar(&plain, "plain", false, "do not encrypt the private key")
	return c
}

func (a *app) keygen(name, algorithm string, plain bool) error {
	phrase, err := a.newPassphrase(plain)
	if err != nil {
		return err
	}
	key, err := manifest.NewKey(algorithm)
	if err != nil {
		return usage("--algorithm: %w", err)
	}
	private, public, err := manifest.EncodeKey(key, phrase)
	if err != nil {
		return err
	}
	// The public one first: a private key without it is of no use, and nothing is overwritten.
	if err := writeNew(name+".pub", public, 0o644); err != nil {
		return err
	}
	if err := writeNew(name, private, 0o600); err != nil {
		return errors.Join(err, os.Remove(name+".pub"))
	}
	id, err := manifest.KeyID(key.Public())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s: the private key; name it with --sign-key or %s\n%s.pub: the public key, for those who verify\nid: %s\n", name, signingKeyVariable, name, id)
	return err
}

func (a *app) newPassphrase(plain bool) (secret.Value, error) {
	if plain {
		return secret.Value{}, nil
	}
	if text := a.env(signingPassphraseVariable); text != "" {
		return secret.New(text), nil
	}
	if !a.isTerminal(a.stdin) || !a.isTerminal(a.stderr) {
		return secret.Value{}, usage("there is no passphrase, and no terminal to ask for one\nhint: set %s, or give --plain", signingPassphraseVariable)
	}
	first, err := a.askSecret("Passphrase: ")
	if err != nil {
		return first, err
	}
	again, err := a.askSecret("Again: ")
	switch {
	case err != nil:
		return first, err
	case first.IsEmpty():
		return first, usage("the passphrase is empty\nhint: --plain leaves the key unencrypted")
	case first.Reveal() != again.Reveal():
		return first, errors.New("the passphrases differ: nothing was written")
	}
	return first, nil
}

// writeNew never replaces a file: it may be somebody's only key.
func writeNew(name string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: name another file", name)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}
