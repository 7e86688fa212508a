// SPDX-License-Identifier: Apache-2.0

package death

import "testing"

func TestFormatBytes(t *testing.T) {
	for _, tc := range []struct {
		n    int64
		want string
	}{
		{0, "0 B"}, {1023, "1023 B"}, {1024, "1 KiB"}, {1536, "1.5 KiB"},
		{41943040, "40 MiB"}, {1<<30 - 1, "1 GiB"}, {1 << 62, "4 EiB"}, {-2048, "-2 KiB"},
		{-1, "-1 B"}, {1<<63 - 1, "8 EiB"}, {-1 << 63, "-8 EiB"},
	} {
		if got := FormatBytes(tc.n); got != tc.want {
			t.Errorf("FormatBytes(%d) = %q, want %q", tc.n, got, tc.want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"java", "java"},
		{"a b)", "a b)"},
		{"tab\there", `tab\x09here`},
		{"esc\x1b[31m", `esc\x1b[31m`},
		{"cut\xc3", `cut\xc3`},
		{`back\slash`, `back\\slash`},
		{"über", "über"},
		{"rtl\u202eoff", `rtl\u202eoff`},
		{"\ufffd", "\ufffd"},
	} {
		if got := Printable(tc.in); got != tc.want {
			t.Errorf("Printable(%q) = %q, want %q", tc.in, got, tc.want)
		}
	}
}
