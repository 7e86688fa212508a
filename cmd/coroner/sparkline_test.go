// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
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
		{"grows", [][3]float64{at(9, 4), at(7, 8), at(4, 16), at(0, 32)}, "▂▃▅█  between 4 MiB and 32 MiB in 9 s"},
		{"falls, the last sample before the end", [][3]float64{at(8.6, 32), at(5, 16), at(1.2, 8)}, "█ ▅▃  between 8 MiB and 32 MiB in 7 s"},
		{"gaps stay", [][3]float64{at(20, 32), at(0, 16)}, "█      ▅  between 16 MiB and 32 MiB in 20 s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := memoryLine(&death.Memory{Samples: tt.samples}, then); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}
