// SPDX-License-Identifier: Apache-2.0

//go:build unix

package agent

import (
	"runtime"
	"syscall"
	"testing"
	"time"
)

// busy is the processor time that this process has had, of each processor: as
// long as it takes all, and has them alone, it goes like time.
func busy(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano()+r.Stime.Nano()) / time.Duration(runtime.NumCPU())
}
