package runs

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"
)

// ID names a run: "20261123-152240-3k7f9c". The first two parts are the start in
// UTC. Of the last six characters (Crockford's base 32, whose ASCII order is its
// numeric order) two are the fraction of the second in 1/1024, so that ids sort by
// time, and four are random, so that concurrent runs of one engine differ.
// An id is a valid label, host name and file name.
type ID string

const (
	idTime   = "20060102-150405"
	idTail   = 6
	crockf32 = "0123456789abcdefghjkmnpqrstvwxyz"
)

// NewID makes an id for a run that starts now.
func NewID(now time.Time) ID {
	now = now.UTC()
	fraction := uint64(now.Nanosecond()) * 1024 / 1e9
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails: https://pkg.go.dev/crypto/rand#Read
	tail := []byte{crockf32[fraction>>5], crockf32[fraction&31]}
	for _, b := range random {
		tail = append(tail, crockf32[b&31])
	}
	return ID(now.Format(idTime) + "-" + string(tail))
}

// ParseID accepts what NewID makes.
func ParseID(s string) (ID, error) {
	date, tail := s[:min(len(s), len(idTime))], s[min(len(s), len(idTime)):]
	ok := len(tail) == 1+idTail && tail[0] == '-' && strings.Trim(tail[1:], crockf32) == ""
	if t := ID(date).Time(); !ok || t.IsZero() || t.Format(idTime) != date {
		return "", fmt.Errorf("%q is not a run id, such as 20261123-152240-3k7f9c", s)
	}
	return ID(s), nil
}

// Time is when the run started, to the second; zero for something that is no id.
func (id ID) Time() time.Time {
	if len(id) < len(idTime) {
		return time.Time{}
	}
	t, err := time.Parse(idTime, string(id[:len(idTime)]))
	if err != nil {
		return time.Time{}
	}
	return t
}
