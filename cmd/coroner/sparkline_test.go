// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"testing"
	"time"
)

func TestMemoryLine(t *testing.T) {
	then := time.Unix(1_800_000_000, 0)
	at := func(before, mib float64) [3]float64 {
		return [3]float64{float64(then.Unix()) - before, mib * (1 << 20), mib * (1 << 20)}
	}
	for _, tt := range []struct {
		name    string
		samples [][3]float64
		want    string
	}{
		{"none", nil, ""},
		{"nothing held", [][3]float64{at(10, 0)}, ""},
		{"no figures", [][3]float64{at(10, math.NaN()), at(5, math.Inf(1)), at(3, -1)}, ""},
		{"one alone", [][3]float64{at(0, 5)}, ""},
		{"too old", [][3]float64{at(500, 10)}, ""},
		{"grows", [][3]float64{at(9, 4), at(7, 8), at(4, 16), at(0, 32)}, "▂▃▅█  4 MiB to 32 MiB in 9 s"},
		{"gaps stay", [][3]float64{at(20, 32), at(0, 16)}, "█      ▅  16 MiB to 32 MiB in 20 s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := memoryLine(tt.samples, then); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}
