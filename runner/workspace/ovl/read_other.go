//go:build !linux

package ovl

import "errors"

// Read fails: overlayfs is Linux's.
func Read(string) (map[string]Attrs, error) {
	return nil, errors.New("overlay attributes exist on Linux alone")
}

// CanRead reports false.
func CanRead(string) bool { return false }
