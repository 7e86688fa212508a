// SPDX-License-Identifier: Apache-2.0

package death

import "math"

// Curve is what can be drawn of a container's memory, and what it tells.
type Curve struct {
	Points    [][3]float64 // [unix seconds, working set, usage]
	Low, High int64        // bytes of the working set
	first     float64
	last      float64
}

// Curve takes the samples from one time to another, in Unix seconds, that are
// figures; nil: there are too few to draw.
func (m *Memory) Curve(from, to float64) *Curve {
	low, high, first, last := math.Inf(1), 0.0, math.Inf(1), math.Inf(-1)
	c := &Curve{}
	for _, s := range m.Samples {
		if !(s[0] > 0 && s[0] >= from && s[0] <= to && s[1] >= 0) || math.IsInf(s[0], 0) || math.IsInf(s[1], 0) {
			continue
		}
		c.Points = append(c.Points, s)
		low, high, first, last = min(low, s[1]), max(high, s[1]), min(first, s[0]), max(last, s[0])
	}
	if len(c.Points) < 2 || last <= first || high < 1 {
		return nil
	}
	c.Low, c.High, c.first, c.last = int64(low), int64(high), first, last
	return c
}

// X is where a point stands between the first, 0, and the last, 1.
func (c *Curve) X(at float64) float64 { return (at - c.first) / (c.last - c.first) }

// Seconds are those from the first point to the last, at least 1.
func (c *Curve) Seconds() int64 { return max(1, int64(math.Round(c.last-c.first))) }
