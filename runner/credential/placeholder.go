package credential

import (
	"crypto/rand"
	"math/big"
	"strings"
)

const (
	// minRandom is how many characters of a secret are to be guessed at least. A shorter placeholder could be met by chance
	// in what the agent sends, and a shorter secret be guessed.
	minRandom = 16
	// maxSecret bounds a secret in bytes. Servers take 8 KiB of headers.
	maxSecret = 8 << 10
)

// newPlaceholder stands for text inside: as long, with the same well-known beginning, of the same kind of characters,
// since clients check all that; and nothing else of it.
func newPlaceholder(text string) (string, error) {
	if err := checkSecret(text); err != nil {
		return "", err
	}
	start := prefixOf(text).text
	rest := text[len(start):]
	alphabet := alphabetOf(rest)
	var b strings.Builder
	b.WriteString(start)
	for _, c := range []byte(rest) {
		if isStructure(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte(alphabet[random(len(alphabet))])
		}
	}
	return b.String(), nil
}

func checkSecret(text string) error {
	if len(text) > maxSecret {
		return refuse("", "the secret has %d characters, and at most %d fit into a header", len(text), maxSecret)
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' {
			return refuse("look for a line break at its end", "the secret has a character that no header takes")
		}
	}
	guess := 0
	for _, c := range []byte(text[len(prefixOf(text).text):]) {
		if !isStructure(c) {
			guess++
		}
	}
	if guess < minRandom {
		return refuse("use a longer one", "the secret is too short: behind its beginning it has %d characters, and %d are needed to tell it from ordinary text", guess, minRandom)
	}
	return nil
}

// isStructure reports what separates the parts of a token, such as a JWT's. It stays.
func isStructure(c byte) bool { return c == '.' }

// The kinds of characters.
const (
	digits = "0123456789"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// alphabetOf is what text is made of, by kind: hexadecimal text stays so. Punctuation is not imitated.
func alphabetOf(text string) string {
	for _, hex := range []string{digits, digits + "abcdef", digits + "ABCDEF"} {
		if !strings.ContainsFunc(text, func(c rune) bool { return !isStructure(byte(c)) && !strings.ContainsRune(hex, c) }) {
			return hex
		}
	}
	var alphabet string
	for _, kind := range []string{digits, lower, upper} {
		if strings.ContainsAny(text, kind) {
			alphabet += kind
		}
	}
	if alphabet == "" { // punctuation alone
		return digits + lower + upper
	}
	return alphabet
}

// random is a number below n.
func random(n int) int {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		panic("credential: bug: crypto/rand.Reader never fails: " + err.Error())
	}
	return int(i.Int64())
}
