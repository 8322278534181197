package main

// archCalls has nothing for arm64: it has no old system calls, and its 32-bit mode (where a CPU has
// one) is entered by running a 32-bit program, not by an instruction.
func archCalls() []attempt { return nil }
