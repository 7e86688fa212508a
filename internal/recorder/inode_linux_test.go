// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"os"
	"syscall"
	"testing"
)

func inode(t testing.TB, info os.FileInfo) uint64 {
	t.Helper()
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no inode")
	}
	return st.Ino
}
