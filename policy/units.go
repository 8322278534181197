package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size.
type Bytes int64

// Binary units.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
	TiB Bytes = 1 << 40
)

const day = 24 * time.Hour

// byteUnits are ordered from large to small, so that String finds the largest that divides.
func byteUnits() []struct {
	name string
	size Bytes
} {
	return []struct {
		name string
		size Bytes
	}{{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"B", 1}}
}

// String is the shortest exact form that [ParseBytes] reads: "4GiB", "1536MiB", "0B".
func (b Bytes) String() string {
	for _, u := range byteUnits() {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return "0B"
}

// ParseBytes reads a whole number with a binary unit: B, KiB, MiB, GiB or TiB. Decimal units are refused, because
// half of the tools mean 1000 by "MB" and the other half 1024.
func ParseBytes(s string) (Bytes, error) {
	digits := strings.TrimRight(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
	unit := s[len(digits):]
	n, err := parseDecimal(digits)
	if err != nil {
		return 0, errors.New("a size is a whole number and a unit, such as 512MiB or 4GiB")
	}
	for _, u := range byteUnits() {
		if unit != u.name {
			continue
		}
		if n > int64((1<<62)/u.size) {
			return 0, errors.New("size is too large")
		}
		return Bytes(n) * u.size, nil
	}
	if u := binaryUnit(unit); u != "" {
		return 0, fmt.Errorf("size needs a binary unit: write %s%s", digits, u)
	}
	return 0, errors.New("size needs a unit: B, KiB, MiB, GiB or TiB")
}

// binaryUnit is the unit that somebody who wrote "4g", "4GB" or "4gib" had in mind.
func binaryUnit(unit string) string {
	lower := strings.ToLower(unit)
	for _, u := range byteUnits() {
		full := strings.ToLower(u.name)
		if u.size > 1 && (lower == full || lower == full[:1] || lower == full[:1]+"b") {
			return u.name
		}
	}
	return ""
}

// ParseDuration reads whole days, hours, minutes and seconds in that order: "30m", "1h30m", "90d", "1d12h".
func ParseDuration(s string) (time.Duration, error) {
	wrong := errors.New("a duration is whole days, hours, minutes and seconds, such as 30m, 1h30m or 90d")
	if s == "" {
		return 0, wrong
	}
	var total time.Duration
	rest := s
	for _, u := range durationUnits() {
		digits, after, found := strings.Cut(rest, u.name)
		if !found {
			continue
		}
		n, err := parseDecimal(digits)
		if err != nil {
			return 0, wrong
		}
		if n > int64(maxDuration/u.size) {
			return 0, errors.New("duration is too long")
		}
		total += time.Duration(n) * u.size
		rest = after
	}
	if rest != "" {
		return 0, wrong
	}
	if total > maxDuration {
		return 0, errors.New("duration is too long")
	}
	return total, nil
}

// maxDuration leaves room for the sum of four units without overflow.
const maxDuration = 100 * 365 * day

func durationUnits() []struct {
	name string
	size time.Duration
} {
	return []struct {
		name string
		size time.Duration
	}{{"d", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
}

// FormatDuration is the shortest form that [ParseDuration] reads; a part below a second is dropped.
func FormatDuration(d time.Duration) string {
	var b strings.Builder
	for _, u := range durationUnits() {
		if n := d / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.size
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}

// parseDecimal reads digits alone: no sign, no underscore, no leading zero, at most 12 of them.
func parseDecimal(s string) (int64, error) {
	if s == "" || len(s) > 12 || (len(s) > 1 && s[0] == '0') {
		return 0, errors.New("not a whole number")
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, errors.New("not a whole number")
		}
	}
	return strconv.ParseInt(s, 10, 64)
}
