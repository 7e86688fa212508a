// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestReadFile(t *testing.T) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 8192, 9000} {
		for _, limit := range []int64{0, 4095, 4096, 8999, 9000} {
			path, want := filepath.Join(t.TempDir(), "f"), bytes.Repeat([]byte("x"), size)
			if err := os.WriteFile(path, want, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readFile(path, limit)
			if fits := int64(size) <= limit; fits != (err == nil) || fits && !bytes.Equal(got, want) {
				t.Errorf("%d bytes, limit %d: got %d bytes, %v", size, limit, len(got), err)
			}
		}
	}
	if _, err := readFile(t.TempDir(), 10); err == nil {
		t.Error("a folder was read")
	}
}

func BenchmarkReadFile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readFile("/proc/self/status", maxSmallFile); err != nil {
			b.Skip(err)
		}
	}
}
