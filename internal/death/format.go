// SPDX-License-Identifier: Apache-2.0

package death

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// FormatBytes writes a size for people: "512 B", "64 KiB", "1.5 GiB".
func FormatBytes(n int64) string {
	const units = "KMGTPE"
	if n > -1024 && n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	if n < 0 {
		return "-" + FormatBytes(max(-n, -(n+1))) // the least number has no opposite
	}
	f, u := float64(n)/1024, 0
	for f >= 1023.95 && u < len(units)-1 {
		f /= 1024
		u++
	}
	s := strconv.FormatFloat(f, 'f', 1, 64)
	return strings.TrimSuffix(s, ".0") + " " + units[u:u+1] + "iB"
}

// ShortID is the form of a container id that people use: its first 12 digits.
func ShortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// Printable makes foreign text (comm, cgroup names) safe to show on a
// terminal and in a sentence: control characters, bidirectional marks and
// bytes that are no UTF-8 come out as \xNN or \u escapes.
func Printable(s string) string {
	clean := func(r rune) bool { return unicode.IsPrint(r) && r != '\\' }
	i := strings.IndexFunc(s, func(r rune) bool { return !clean(r) || r == utf8.RuneError })
	if i < 0 {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:i])
	for rest := s[i:]; rest != ""; {
		r, n := utf8.DecodeRuneInString(rest)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + hex2(rest[0]))
		case clean(r):
			b.WriteRune(r)
		case r == '\\':
			b.WriteString(`\\`)
		case r < 0x80:
			b.WriteString(`\x` + hex2(byte(r)))
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		rest = rest[n:]
	}
	return b.String()
}

func hex2(c byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[c>>4], digits[c&15]})
}
