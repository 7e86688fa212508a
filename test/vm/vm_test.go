// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNumbers_OrderKernels(t *testing.T) {
	names := []string{
		"linux-image-6.12.9+deb12-cloud-amd64", "linux-image-6.12.117+deb12-cloud-amd64", "linux-image-6.12.38+deb12-cloud-amd64",
	}
	got := slices.MaxFunc(names, func(a, b string) int { return slices.Compare(numbers(a), numbers(b)) })
	if got != names[1] {
		t.Errorf("newest = %s, want %s", got, names[1])
	}
}

func TestCpio_HoldsFilesAndTheirFolders(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a", "b", "c"), []byte("12345"), 0o640); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := &cpio{w: bufio.NewWriter(&out), made: map[string]bool{"/": true}}
	w.tree("/data", filepath.Join(dir, "a"))
	w.bytes("/plan", 0o644, []byte("{}"))
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"data 40755 ", "data/b 40755 ", "data/b/c 100640 12345", "plan 100644 {}", "TRAILER!!! 0 "}
	if diff := cmp.Diff(want, unpackCpio(t, out.Bytes())); diff != "" {
		t.Errorf("archive (-want +got):\n%s", diff)
	}
}

// unpackCpio reads the format as the kernel's buffer-format document has it.
func unpackCpio(t *testing.T, b []byte) []string {
	t.Helper()
	field := func(i int) int {
		n, err := strconv.ParseInt(string(b[6+8*i:14+8*i]), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	align := func(n int) int { return (n + 3) &^ 3 }
	var out []string
	for len(b) > 0 {
		mode, size, nameLen := field(1), field(6), field(11)
		name := strings.TrimSuffix(string(b[110:110+nameLen]), "\x00")
		data := align(110 + nameLen)
		out = append(out, name+" "+strconv.FormatInt(int64(mode), 8)+" "+string(b[data:data+size]))
		b = b[align(data+size):]
	}
	return out
}

// TestArgs_Disk: what a machine writes to its disk does not stay.
func TestArgs_Disk(t *testing.T) {
	var m machine
	drive := func(args []string) string {
		if i := slices.Index(args, "-drive"); i >= 0 {
			return args[i+1]
		}
		return ""
	}
	if got := drive(m.args(parts{root: "/img"})); !strings.Contains(got, "snapshot=on") || !strings.HasSuffix(got, "file=/img") {
		t.Errorf("drive %q", got)
	}
	if got := drive(m.args(parts{})); got != "" {
		t.Errorf("drive %q without a disk", got)
	}
}
