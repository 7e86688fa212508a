// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
	"unsafe"
)

// kernelSigaction is struct sigaction of the kernel on 64-bit machines
// (include/linux/signal_types.h); all zero is SIG_DFL.
type kernelSigaction struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// defaultAction takes a signal away from Go's runtime, which would turn a
// SIGSEGV or SIGABRT into an exit of its own. An error leaves it as it was.
func defaultAction(sig int) {
	var act kernelSigaction
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0)
}
