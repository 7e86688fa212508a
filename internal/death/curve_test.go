// SPDX-License-Identifier: Apache-2.0

package death

import (
	"math"
	"testing"
)

func TestCurve(t *testing.T) {
	m := &Memory{Samples: [][3]float64{
		{100, 9, 9}, {101.2, 5, 5}, {math.NaN(), 1, 1}, {102, math.Inf(1), 1}, {103, -1, 1}, {104, 3, 4}, {136.9, 2, 2}, {200, 1, 1},
	}}
	c := m.Curve(101, 137)
	if c == nil || len(c.Points) != 3 || c.Low != 2 || c.High != 5 || c.Seconds() != 36 || c.X(101.2) != 0 || c.X(136.9) != 1 {
		t.Errorf("a part: %+v", c)
	}
	if c := m.Curve(math.Inf(-1), math.Inf(1)); c == nil || c.Low != 1 || c.High != 9 || c.Seconds() != 100 {
		t.Errorf("all: %+v", c)
	}
	for _, samples := range [][][3]float64{nil, {{5, 1, 1}}, {{5, 1, 1}, {5, 2, 2}}, {{5, 0, 0}, {6, 0, 0}}} {
		if c := (&Memory{Samples: samples}).Curve(0, 10); c != nil {
			t.Errorf("%v: %+v", samples, c)
		}
	}
}
