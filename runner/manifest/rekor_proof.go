package manifest

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
)

const sha256Size = sha256.Size

// inclusionProof leads from an entry to the root of a log's tree, which the log has signed.
type inclusionProof struct {
	LogIndex   int64Text `json:"logIndex"` // in this tree
	RootHash   []byte    `json:"rootHash"`
	TreeSize   int64Text `json:"treeSize"`
	Hashes     [][]byte  `json:"hashes,omitempty"`
	Checkpoint struct {
		Envelope string `json:"envelope"`
	} `json:"checkpoint"`
}

var (
	errProof      = errors.New("the log's proof does not lead from the entry to its root")
	errCheckpoint = errors.New("the log has not signed the root of the proof")
)

// check computes the root from the entry, and looks for it in what the log has signed.
func (p *inclusionProof) check(key crypto.PublicKey, entry []byte) error {
	root, ok := rootFrom(entry, uint64(p.LogIndex), uint64(p.TreeSize), p.Hashes)
	if !ok || p.LogIndex < 0 || p.TreeSize < 0 || !bytes.Equal(root, p.RootHash) {
		return errProof
	}
	size, signed, ok := openCheckpoint(p.Checkpoint.Envelope, key)
	if !ok || size != uint64(p.TreeSize) || !bytes.Equal(signed, root) {
		return errCheckpoint
	}
	return nil
}

// maxPath is that of a tree with 2^63 entries.
const maxPath = 64

// rootFrom is the algorithm of RFC 9162, section 2.1.3.2.
func rootFrom(entry []byte, index, size uint64, path [][]byte) ([]byte, bool) {
	if index >= size || len(path) > maxPath {
		return nil, false
	}
	node := sha256.Sum256(append([]byte{0}, entry...)) // 0 and 1 tell leaves from the nodes above
	at, last := index, size-1
	for _, other := range path {
		if last == 0 || len(other) != sha256Size {
			return nil, false
		}
		if at&1 == 1 || at == last {
			node = above(other, node[:])
			for at&1 == 0 && at != 0 {
				at, last = at>>1, last>>1
			}
		} else {
			node = above(node[:], other)
		}
		at, last = at>>1, last>>1
	}
	return node[:], last == 0
}

func above(left, right []byte) [sha256Size]byte {
	return sha256.Sum256(append(append([]byte{1}, left...), right...))
}

// maxCosigned bounds the signatures under a checkpoint: witnesses sign it too.
const maxCosigned = 64

// openCheckpoint reads a checkpoint (https://github.com/C2SP/C2SP/blob/main/tlog-checkpoint.md) that the key has signed as a note
// (https://github.com/C2SP/C2SP/blob/main/signed-note.md). The names and short ids beside its signatures are hints: that it was the key is
// what counts.
func openCheckpoint(envelope string, key crypto.PublicKey) (size uint64, root []byte, ok bool) {
	text, below, found := strings.Cut(envelope, "\n\n")
	text += "\n"
	lines := strings.Split(text, "\n") // the origin, the size, the root, perhaps more
	if !found || len(lines) < 4 || !signedNote(text, below, key) {
		return 0, nil, false
	}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil {
		return 0, nil, false
	}
	root, err = base64.StdEncoding.DecodeString(lines[2])
	return size, root, err == nil && len(root) == sha256Size
}

// signedNote: every line below the text is a signature, and one is the key's.
func signedNote(text, below string, key crypto.PublicKey) (signed bool) {
	const idLen = 4
	lines := strings.Split(below, "\n")
	last := len(lines) - 1
	if lines[last] != "" || last > maxCosigned {
		return false
	}
	for _, line := range lines[:last] {
		fields := strings.Split(line, " ")
		if len(fields) != 3 || fields[0] != "\u2014" {
			return false
		}
		sig, err := base64.StdEncoding.DecodeString(fields[2])
		if err != nil || len(sig) <= idLen {
			return false
		}
		signed = signed || checkSignature(key, []byte(text), sig[idLen:]) == nil
	}
	return signed
}
