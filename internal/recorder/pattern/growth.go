// SPDX-License-Identifier: Apache-2.0

package pattern

import (
	"math"
	"slices"
	"time"
)

// Growth is a trend that is no chance.
type Growth struct {
	// BytesPerSecond is the present rate of the working set.
	BytesPerSecond float64
	// Window is the time over which it was seen.
	Window time.Duration
}

// horizon is how far ahead, in lengths of its own window, a trend may tell:
// two minutes tell of one hour, an hour of 30.
const horizon = 30

const (
	// points is the number of equal parts of a window, leastPoints how many
	// must have samples.
	points, leastPoints = 12, 6
	// certain is the one-sided 0.5 % quantile of the normal distribution.
	certain = 2.58
	// goesOn is the part of the window's rate that its later half must have:
	// a cache that has filled does not go on.
	goesOn = 1.0 / 3
	// leastRise is the part of the limit that it must rise in the window: what
	// hugs its limit moves a little all the time.
	leastRise = 0.01
	// drop is the part of its height that a curve falls by when it falls.
	drop = 0.10
	// teeth is how many falls a window must hold to be told apart from one
	// tooth of a saw.
	teeth = 3
)

// windows are tried from the shortest, in seconds.
var windows = [...]int64{120, 600, 3600}

// Grows tells whether the working set grows towards the limit, and how fast,
// from the shortest window that tells it: 2 minutes, 10 minutes, an hour. It
// is false where there is no limit, and where the rate would reach it only
// beyond what the window can tell (Until).
//
// A garbage collector's saw does not grow, a leak below one does: of each
// twelfth of the window only the lowest counts. These must rise by more than
// chance (Mann and Kendall's test, 0.5 %), must still do so in the later half
// of the window, and by a hundredth of the limit. The rate is the median of
// all slopes of the later half (Theil and Sen's estimate). Where the last hour
// fell again and again, a window shorter than three teeth says nothing, unless
// the curve is higher now than it was in the hour.
func Grows(samples [][3]int64, limit int64) (Growth, bool) {
	if len(samples) == 0 || limit <= 0 {
		return Growth{}, false
	}
	now := samples[len(samples)-1][1]
	for _, w := range windows {
		g, ok := growth(samples, w)
		if !ok || g.BytesPerSecond*float64(w) < leastRise*float64(limit) {
			continue
		}
		if _, near := g.Until(now, limit); near && !tooth(samples, w) {
			return g, true
		}
	}
	return Growth{}, false
}

// Until is the time, in seconds, until the working set reaches the limit at
// this rate. It is false where that is further than the trend can tell.
func (g Growth) Until(workingSet, limit int64) (float64, bool) {
	if g.BytesPerSecond <= 0 || limit <= 0 {
		return 0, false
	}
	s := math.Max(0, float64(limit)-float64(workingSet)) / g.BytesPerSecond
	return s, s <= horizon*g.Window.Seconds()
}

// growth looks at one window up to the last sample.
func growth(samples [][3]int64, window int64) (Growth, bool) {
	var p [points]point
	n := lowest(samples, window, &p)
	if n < leastPoints || !rises(p[:n]) {
		return Growth{}, false
	}
	whole, late := slope(p[:n]), slope(p[n-max(n/2, 3):n])
	if whole <= 0 || late < goesOn*whole {
		return Growth{}, false
	}
	return Growth{late, time.Duration(window) * time.Second}, true
}

type point struct{ at, value float64 }

// lowest fills the lowest working set of each part of the window. In windows
// longer than the shortest, samples of a second count as their tens: the
// highest of ten seconds, as all older ones are.
func lowest(samples [][3]int64, window int64, out *[points]point) int {
	last := samples[len(samples)-1][0]
	from, width := last-window+1, window/points
	n, part := 0, int64(-1)
	for i := 0; i < len(samples); {
		at, v := samples[i][0], samples[i][1]
		i++
		if window > windows[0] {
			for i < len(samples) && samples[i][0]/10 == at/10 {
				v = max(v, samples[i][1])
				i++
			}
		}
		if at < from || at > last {
			continue
		}
		switch p := (at - from) / width; {
		case p != part && n < points:
			out[n] = point{float64(from + p*width), float64(v)}
			part = p
			n++
		case n > 0:
			out[n-1].value = math.Min(out[n-1].value, float64(v))
		}
	}
	return n
}

// rises is the test of Mann and Kendall with its correction for continuity:
// of all pairs, are more rising than falling, by more than chance?
func rises(p []point) bool {
	s := 0
	for i := range p {
		for j := range i {
			switch {
			case p[i].value > p[j].value:
				s++
			case p[i].value < p[j].value:
				s--
			}
		}
	}
	n := float64(len(p))
	deviation := math.Sqrt(n * (n - 1) * (2*n + 5) / 18)
	return float64(s-1) >= certain*deviation
}

// slope is the estimate of Theil and Sen: the median of the slopes of all pairs.
func slope(p []point) float64 {
	var all [points * (points - 1) / 2]float64
	n := 0
	for i := range p {
		for j := range i {
			if p[i].at > p[j].at {
				all[n] = (p[i].value - p[j].value) / (p[i].at - p[j].at)
				n++
			}
		}
	}
	if n == 0 {
		return 0
	}
	slices.Sort(all[:n])
	if n%2 == 0 {
		return (all[n/2-1] + all[n/2]) / 2
	}
	return all[n/2]
}

// tooth tells whether what rises in this window may be one tooth of a saw.
func tooth(samples [][3]int64, window int64) bool {
	falls, top, apart := fallen(samples)
	now := float64(samples[len(samples)-1][1])
	return falls >= 2 && window < teeth*apart && now <= before*float64(top)
}

// fallen counts the times that the curve fell by a tenth of its height, and
// gives the greatest height that it fell from and the mean time, in seconds,
// between two falls.
func fallen(samples [][3]int64) (falls int, top, apart int64) {
	var high, low, first, last int64
	falling := false
	for _, s := range samples {
		v := s[1]
		switch {
		case falling && v > low+int64(drop*float64(low)):
			falling, high = false, v
		case falling:
			low = min(low, v)
		case v > high:
			high = v
		case float64(v) < (1-drop)*float64(high):
			falling, low = true, v
			top = max(top, high)
			if falls == 0 {
				first = s[0]
			}
			last = s[0]
			falls++
		}
	}
	if falls > 1 {
		apart = (last - first) / int64(falls-1)
	}
	return falls, top, apart
}
