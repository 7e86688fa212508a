// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// kept is what a series must keep of samples (time, working set, usage), as
// its documentation says, the slow way.
func kept(all [][3]int64) [][3]int64 {
	if len(all) == 0 {
		return nil
	}
	first, last := all[0][0], all[len(all)-1][0]
	from := max(first, last-119)
	if from > first {
		from = (from + 9) / 10 * 10
	}
	var out [][3]int64
	for _, s := range all {
		at := s[0]
		if s[0] < from {
			if at = s[0] / 10 * 10; at/10 <= last/10-360 {
				continue
			}
			at = max(at, first)
		}
		if n := len(out); n == 0 || out[n-1][0] != at {
			out = append(out, [3]int64{at, s[1], s[2]})
		} else if o := &out[n-1]; s[1] > o[1] || s[1] == o[1] && s[2] > o[2] {
			o[1], o[2] = s[1], s[2]
		}
	}
	return out
}

// TestSeries_KeepsWhatItSays: random lives, with gaps of seconds and of hours,
// several readings in a second.
func TestSeries_KeepsWhatItSays(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for life := range 80 {
		var s series
		var all [][3]int64
		at := r.Int64N(10000)
		for range r.IntN(6000) {
			usage := r.Int64N(1<<22) * unit
			v := [3]int64{at, r.Int64N(usage/unit+1) * unit, usage}
			all = append(all, v)
			s.add(v[0], sampleOf(v[1], v[2]))
			switch r.IntN(1000) {
			case 0:
				at += r.Int64N(8000)
			case 1, 2, 3:
				at += r.Int64N(300)
			case 4, 5, 6, 7, 8, 9:
			default:
				at++
			}
		}
		got := s.appendTo(nil, 1000)
		want := kept(all)
		for i := range want {
			want[i][0] += 1000
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("life %d of %d samples (-want +got):\n%s", life, len(all), diff)
		}
		if len(got) > seconds+tens {
			t.Errorf("%d samples", len(got))
		}
	}
}

func TestSeries_AClockThatStandsStill(t *testing.T) {
	var s series
	s.add(10, sampleOf(unit, unit))
	s.add(9, sampleOf(2*unit, 2*unit))
	if diff := cmp.Diff([][3]int64{{10, 2 * unit, 2 * unit}}, s.appendTo(nil, 0)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnits(t *testing.T) {
	for bytes, want := range map[int64]uint32{-5: 0, 0: 0, 4095: 0, 4096: 1, 1 << 40: 1 << 28, 1<<63 - 1: absent - 1} {
		if got := units(bytes); got != want {
			t.Errorf("%d: %d units, want %d", bytes, got, want)
		}
	}
}

// TestEntry_IsSmall: 4 KiB of samples and what Go's allocator adds.
func TestEntry_IsSmall(t *testing.T) {
	if n := unsafe.Sizeof(entry{}); n > 4864 { // the size class above 4096
		t.Errorf("%d bytes a cgroup", n)
	} else {
		t.Logf("%d bytes a cgroup", n)
	}
}
