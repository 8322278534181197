package workspace

import "golang.org/x/sys/unix"

// renameFlags is renameatx_np(2).
func renameFlags(fromDir int, from string, toDir int, to string, kind renameKind) error {
	flags := uint32(unix.RENAME_EXCL)
	if kind == renameSwap {
		flags = unix.RENAME_SWAP
	}
	return unix.RenameatxNp(fromDir, from, toDir, to, flags)
}
