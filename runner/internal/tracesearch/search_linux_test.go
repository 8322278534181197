package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestSearch: a text is found wherever it is, also across the pieces that are read.
func TestSearch(t *testing.T) {
	s, err := newSearch(map[string][]byte{"a": []byte("0123456789"), "b": []byte("01234567xyz"), "none": []byte("nowhere at all")})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 1, pieceSize - 20, pieceSize - 5, pieceSize, 2*pieceSize - 1, 3*pieceSize + 7} {
		data := bytes.Repeat([]byte{'.'}, 4*pieceSize)
		copy(data[at:], "01234567890 01234567xyz")
		found, n := s.through(bytes.NewReader(data))
		if !found["a"] || !found["b"] || found["none"] || n != int64(len(data)) {
			t.Errorf("at %d: found %v in %d bytes", at, found, n)
		}
	}
	if found, _ := s.through(strings.NewReader("012345678 nowhere")); len(found) != 0 {
		t.Errorf("found %v where nothing is", found)
	}
}

// TestShortText: it would match anywhere.
func TestShortText(t *testing.T) {
	if _, err := newSearch(map[string][]byte{"short": []byte("1234567")}); err == nil {
		t.Error("a short text is taken")
	}
}
