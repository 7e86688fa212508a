// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"strings"
	"testing"
)

// FuzzFileMappings: only mappings of this very file that nobody writes to.
func FuzzFileMappings(f *testing.F) {
	f.Add("400000-500000 r-xp 00000000 08:01 7 /bin/x\n", "/bin/x")
	f.Add("500000-400000 r-xp 0 0 7 /bin/x\n5-6 rw-p 0 0 7 /bin/x\n7-8 r--p 0 0 0\n", "/bin/x")
	f.Fuzz(func(t *testing.T, maps, path string) {
		for _, m := range fileMappings(maps, path) {
			if m[0] >= m[1] || !strings.Contains(maps, path) {
				t.Errorf("%x of %q in %q", m, path, maps)
			}
		}
		if strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || path == "" {
			return
		}
		whole := fmt.Sprintf("400000-500000 r-xp 00000000 08:01 7 %s\n600000-700000 rw-p 0 0 7 %[1]s\n800000-900000 r--p 0 0 7 %[1]sx\n", path)
		if got := fileMappings(whole, path); len(got) != 1 || got[0] != [2]uintptr{0x400000, 0x500000} {
			t.Errorf("%x of %q", got, whole)
		}
	})
}

// FuzzPristineMappings: nothing that is not said to be.
func FuzzPristineMappings(f *testing.F) {
	f.Add("400000-500000 r-xp 0 08:01 7 /bin/x\nAnonymous: 0 kB\n500000-600000 r--p 0 0 7 /bin/x\nAnonymous: 8 kB\n")
	f.Add("Anonymous: 0 kB\n-\nAnonymous: 0 kB\nx-y\n")
	f.Fuzz(func(t *testing.T, smaps string) {
		if got := pristineMappings(smaps); len(got) > strings.Count(smaps, "Anonymous:") || got[0] {
			t.Errorf("%v in %q", got, smaps)
		}
		if got := pristineMappings("400000-500000 r-xp 0 08:01 7 /bin/x\n" + smaps); got[0x400000] && !strings.Contains(smaps, "Anonymous:") {
			t.Errorf("%v in %q", got, smaps)
		}
	})
}
