// SPDX-License-Identifier: Apache-2.0

package tracepoint

import "syscall"

// vforkAndPause makes a process that shares this one's memory, as vfork(2)
// does, and stays so: its parent's thread stands still until it ends. Both run
// on the same stack, which is why neither may ever come back.
//
//go:nosplit
//go:norace
func vforkAndPause() {
	pid, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE,
		syscall.CLONE_VM|syscall.CLONE_VFORK|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	for pid == 0 {
		// ppoll with no descriptors and no time: for ever.
		syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	for {
		syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}
