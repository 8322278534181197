//go:build !windows

package credential

import "syscall"

const nonblock = syscall.O_NONBLOCK
