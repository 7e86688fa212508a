// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

type noticed struct {
	WD   int32
	Mask uint32
	Name string
}

// rawNotice is struct inotify_event as the kernel writes it.
func rawNotice(n noticed) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(n.WD))
	b = binary.NativeEndian.AppendUint32(b, n.Mask)
	b = binary.NativeEndian.AppendUint32(b, 0)
	padded := append([]byte(n.Name), make([]byte, 16-len(n.Name)%16)...)
	if n.Name == "" {
		padded = nil
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(len(padded)))
	return append(b, padded...)
}

func noticesIn(b []byte) (all []noticed) {
	parseNotices(b, func(n notice) { all = append(all, noticed{n.wd, n.mask, string(n.name)}) })
	return all
}

func TestParseNotices(t *testing.T) {
	want := []noticed{{1, unix.IN_CREATE | unix.IN_ISDIR, "a name"}, {-1, unix.IN_Q_OVERFLOW, ""}}
	two := append(rawNotice(want[0]), rawNotice(want[1])...)
	if diff := cmp.Diff(want, noticesIn(two)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for cut := range len(two) { // the kernel never cuts; nothing breaks if it did
		if n := len(noticesIn(two[:cut])); n > 1 {
			t.Errorf("cut at %d: %d events", cut, n)
		}
	}
}

// FuzzParseNotices: nothing comes out that is not in the buffer, the buffer
// stays as it is, and what was understood is written and read again the same.
func FuzzParseNotices(f *testing.F) {
	f.Add(rawNotice(noticed{1, unix.IN_CREATE | unix.IN_ISDIR, "a name"}))
	f.Add(append(rawNotice(noticed{1, unix.IN_DELETE, "sixteen bytes ok"}), rawNotice(noticed{-1, unix.IN_Q_OVERFLOW, ""})...))
	f.Add(append(make([]byte, 12), 0xff, 0xff, 0xff, 0xff, 'x'))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		all := noticesIn(b)
		if !bytes.Equal(b, before) {
			t.Error("the buffer was changed")
		}
		size := 0
		var raw []byte
		for _, n := range all {
			size += unix.SizeofInotifyEvent + len(n.Name)
			if bytes.IndexByte([]byte(n.Name), 0) >= 0 || !bytes.Contains(b, []byte(n.Name)) {
				t.Errorf("name %q", n.Name)
			}
			raw = append(raw, rawNotice(n)...)
		}
		if size > len(b) {
			t.Errorf("%d bytes of %d", size, len(b))
		}
		if diff := cmp.Diff(all, noticesIn(raw)); diff != "" {
			t.Errorf("(-first +again):\n%s", diff)
		}
		if len(all) == 0 {
			return
		}
		// Whole events stay when the last is cut.
		if got := noticesIn(raw[:len(raw)-1]); len(got) != len(all)-1 {
			t.Errorf("%d events of a cut buffer, want %d", len(got), len(all)-1)
		}
	})
}
