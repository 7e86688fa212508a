// SPDX-License-Identifier: Apache-2.0

package kernlog

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSyslog(t *testing.T) {
	for line, want := range map[string]*Record{
		"<6>[   12.345678] memory: usage 1kB": {Level: 6, Stamp: 12345678 * time.Microsecond, HasStamp: true, Text: []byte("memory: usage 1kB")},
		"<3>[81268.000001][  T12]  two":       {Level: 3, Stamp: 81268*time.Second + time.Microsecond, HasStamp: true, Caller: []byte("T12"), Text: []byte(" two")},
		"<30>[    1.000000] systemd[1]: x":    {Facility: 3, Level: 6, Stamp: time.Second, HasStamp: true, Text: []byte("systemd[1]: x")},
		"<6>[    1.000000] ":                  {Level: 6, Stamp: time.Second, HasStamp: true, Text: []byte("")},
		"<4>no stamp":                         {Level: 4, Text: []byte("no stamp")},
		"<4>[    7]  0  7 row":                {Level: 4, Text: []byte("[    7]  0  7 row")},
		"<4>":                                 {Level: 4, Text: []byte("")},
		"4>x":                                 nil,
		"<x>y":                                nil,
		"":                                    nil,
	} {
		got, ok := Syslog([]byte(line))
		if want == nil {
			want = &Record{}
			if ok {
				t.Errorf("%q is a line", line)
			}
		}
		if diff := cmp.Diff(*want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", line, diff)
		}
	}
}

func FuzzSyslog(f *testing.F) {
	f.Add([]byte("<6>[   12.345678][   C0] x"))
	f.Fuzz(func(t *testing.T, line []byte) {
		rec, ok := Syslog(line)
		if !ok && cmp.Diff(Record{}, rec) != "" || ok && !bytes.HasSuffix(line, rec.Text) || rec.Stamp < 0 || rec.Level > 7 || rec.Facility < 0 {
			t.Errorf("%q: %v %+v", line, ok, rec)
		}
	})
}
