// SPDX-License-Identifier: Apache-2.0

package kernlog

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseKmsg(t *testing.T) {
	for _, tt := range []struct {
		name, raw string
		want      Record
	}{
		{"plain", "6,347,2506835,-;text\n", Record{Seq: 347, HasSeq: true, Stamp: 2506835 * time.Microsecond, HasStamp: true, Level: 6, Text: []byte("text")}},
		{"fragment", "4,1,2,c;/rest", Record{Seq: 1, HasSeq: true, Stamp: 2000, HasStamp: true, Level: 4, Fragment: true, Text: []byte("/rest")}},
		{"fragment before 4.10", "4,1,2,+;/rest", Record{Seq: 1, HasSeq: true, Stamp: 2000, HasStamp: true, Level: 4, Fragment: true, Text: []byte("/rest")}},
		{"user space", "14,1,2,-;x", Record{Seq: 1, HasSeq: true, Stamp: 2000, HasStamp: true, Facility: 1, Level: 6, Text: []byte("x")}},
		{"caller and more fields", "3,1,2,-,caller=T9185,new=1,x;a;b", Record{Seq: 1, HasSeq: true, Stamp: 2000, HasStamp: true, Level: 3, Caller: []byte("T9185"), Text: []byte("a;b")}},
		{"properties", "6,1,2,-;a\n SUBSYSTEM=pci\n DEVICE=+pci:0\n", Record{Seq: 1, HasSeq: true, Stamp: 2000, HasStamp: true, Level: 6, Text: []byte("a")}},
		{"escapes", `6,1,2,-;\xc3\xbc\x0a\x5cx2d\xZZ\` + "\n", Record{Seq: 1, HasSeq: true, Stamp: 2000, HasStamp: true, Level: 6, Text: []byte("ü\n\\x2d\\xZZ\\")}},
		{"empty text", "6,1,2,-;\n", Record{Seq: 1, HasSeq: true, Stamp: 2000, HasStamp: true, Level: 6, Text: []byte{}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseKmsg([]byte(tt.raw))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseKmsg_Malformed(t *testing.T) {
	for _, raw := range []string{
		"", "6", "6,", "6,1", "6,1,", "6,1,2", "6,1,2,-", "x,1,2,-;t", "6,x,2,-;t", "6,1,x,-;t", "6,1,2x-;t", "6 1,2,-;t",
		"-6,1,2,-;t", "99999999,1,2,-;t", "6,99999999999999999999999,2,-;t", "6,1,18446744073709551615,-;t",
	} {
		if rec, err := ParseKmsg([]byte(raw)); !errors.Is(err, ErrRecord) {
			t.Errorf("%q: got %+v, %v, want ErrRecord", raw, rec, err)
		}
	}
}

func TestDecoder_AllocatesNothing(t *testing.T) {
	var d Decoder
	for _, raw := range []string{"6,347,2506835,-,caller=T1;usb 1-1: new device\n", `6,1,2,-;caf\xc3\xa9 \x5c` + "\n"} {
		b := []byte(raw)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := d.Kmsg(b); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%q: got %v allocations, want 0", raw, n)
		}
	}
}

func BenchmarkDecoder_Kmsg(b *testing.B) {
	raw := []byte("6,347,2506835,-;" + strings.Repeat("x", 80) + "\n")
	var d Decoder
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := d.Kmsg(raw); err != nil {
			b.Fatal(err)
		}
	}
}
