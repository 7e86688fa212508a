// SPDX-License-Identifier: Apache-2.0

package death

import (
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzPrintable: what is shown cannot move a cursor or turn a line around, is
// bounded, and says exactly which bytes there were.
func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"", "plain", "\x1b[31m", `a\x1b`, "a\u202eb", "\xff\xfe", "\ufffd", "💥\u00ad\u2028", "\U000e0001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Printable(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q: %q cannot be printed", s, got)
		}
		if len(got) > 6*len(s) {
			t.Errorf("%q: %d bytes of %d", s, len(got), len(s))
		}
		// Go's own reader of escapes takes them back.
		back, err := strconv.Unquote(`"` + strings.ReplaceAll(got, `"`, `\"`) + `"`)
		if err != nil || back != s {
			t.Errorf("%q: %q leads to %q, %v", s, got, back, err)
		}
	})
}

// FuzzFormatBytes: a number and a unit, right to a twentieth.
func FuzzFormatBytes(f *testing.F) {
	for _, n := range []int64{0, 1023, 1024, 1<<30 - 1, -1, 1<<63 - 1, -1 << 63} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		got := FormatBytes(n)
		number, unit, ok := strings.Cut(got, " ")
		v, err := strconv.ParseFloat(number, 64)
		power := strings.Index("BKMGTPE", unit[:1])
		if !ok || err != nil || power < 0 || len(got) > 11 {
			t.Fatalf("%d: %q", n, got)
		}
		for range power {
			v *= 1024
		}
		if off := v - float64(n); off > 0.05*max(float64(n), -float64(n)) || -off > 0.05*max(float64(n), -float64(n)) {
			t.Errorf("%d: %q, which is %f", n, got, v)
		}
	})
}
