// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// However a log is read, in readings that reach back or do not, each line is
// told once, in order, and where one is left out it is said.
func TestFresh_EachLineOnce(t *testing.T) {
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var all [][]byte
		var tail []byte
		read := 0
		for range 1 + rnd.IntN(8) {
			for range rnd.IntN(40) {
				stamp := len(all) / (1 + rnd.IntN(3)) // lines may share one
				all = append(all, fmt.Appendf(nil, "<6>[%d] line %d%s\n", stamp, len(all), bytes.Repeat([]byte{'x'}, rnd.IntN(90))))
			}
			from := max(0, len(all)-rnd.IntN(60))
			log := bytes.Join(all[from:], nil)
			got, ok := fresh(tail, log)
			// The truth: what was not read yet, of what is there.
			if lost := from > read; len(log) > 0 && !lost && read > from && !ok {
				t.Fatalf("seed %d: a gap where there is none", seed)
			} else if lost && ok && len(tail) > 0 {
				t.Fatalf("seed %d: %d lines are lost, and it is not said", seed, from-read)
			}
			if len(log) == 0 {
				continue
			}
			if want := bytes.Join(all[max(from, read):], nil); !bytes.Equal(got, want) {
				t.Fatalf("seed %d: got %q, want %q", seed, got, want)
			}
			if !ok {
				tail = nil
			}
			tail, read = bytes.Clone(lastLines(append(tail, got...))), len(all)
		}
	}
}

func FuzzFresh(f *testing.F) {
	f.Add([]byte("a\nb\nc\n"), 2, 4)
	f.Add([]byte("a\na\na\n"), 2, 4)
	f.Fuzz(func(t *testing.T, all []byte, read, from int) {
		if len(all) == 0 || all[len(all)-1] != '\n' || read < 0 || read > len(all) || from < 0 || from > read || !whole(all, read) || !whole(all, from) {
			return
		}
		tail, log := lastLines(all[:read]), all[from:]
		if len(tail) > 0 && !bytes.HasSuffix(all[:read], tail) || !whole(all, read-len(tail)) {
			t.Fatalf("tail %q of %q", tail, all[:read])
		}
		got, ok := fresh(tail, log)
		if !bytes.HasSuffix(log, got) {
			t.Fatalf("%q is no end of %q", got, log)
		}
		// Nothing is told again; lines that come again are all that may be left out.
		if ok && len(tail) > 0 && len(got) > len(all)-read {
			t.Errorf("%q again", got[:len(got)-(len(all)-read)])
		}
		if !ok && from < read {
			t.Errorf("%q not found in %q", tail, log)
		}
	})
}

// whole tells whether a line begins at i.
func whole(all []byte, i int) bool { return i == 0 || all[i-1] == '\n' }
