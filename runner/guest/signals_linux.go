package guest

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// lastSignal is the kernel's _NSIG: signal(7) names the ones up to SIGSYS, the rest are real-time signals.
	lastSignal = 64
	// The values of sigaction's handler (rt_sigaction(2)).
	signalDefault = 0
	signalIgnored = 1
)

// sigaction is the kernel's struct, which amd64 and arm64 lay out alike (asm-generic/signal.h, asm/signal.h).
type sigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// defaultSignals undoes what this process was started with: a signal that was ignored stays so over execve(2), from
// whatever started the engine down to the agent. It would tell the agent about the host, and a program that leaves
// SIGPIPE or SIGHUP as it finds them would not end when it should. Go resets its own handlers and never an ignored signal.
func defaultSignals() error {
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		var act sigaction
		if err := rtSigaction(sig, nil, &act); err != nil {
			return err
		}
		if act.handler != signalIgnored {
			continue
		}
		if err := rtSigaction(sig, &sigaction{handler: signalDefault}, nil); err != nil {
			return err
		}
	}
	return nil
}

// rtSigaction asks the kernel itself: the C library and os/signal keep their hands on signals 32 and 33, which may be
// ignored like any other.
func rtSigaction(sig uintptr, next, old *sigaction) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(next)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(sigaction{}.mask), 0, 0)
	if errno != 0 {
		return fmt.Errorf("signal %d: %w", sig, errno)
	}
	return nil
}
