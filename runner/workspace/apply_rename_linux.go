package workspace

import "golang.org/x/sys/unix"

// renameFlags is renameat2(2).
func renameFlags(fromDir int, from string, toDir int, to string, kind renameKind) error {
	flags := uint(unix.RENAME_NOREPLACE)
	if kind == renameSwap {
		flags = unix.RENAME_EXCHANGE
	}
	return unix.Renameat2(fromDir, from, toDir, to, flags)
}
