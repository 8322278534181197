//go:build !linux

package workspace

import "errors"

// whiteOut is never reached: there is no overlay here.
func (v *View) whiteOut([]string) error {
	return errors.New("whiteouts are Linux's")
}
