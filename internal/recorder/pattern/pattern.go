// SPDX-License-Identifier: Apache-2.0

// Package pattern tells what a memory curve looks like: whether it grows and
// how fast, and what shape it had before a death. It is pure: it knows samples
// and a limit, and no container. It says nothing rather than something that a
// person who looks at the curve would not believe.
//
// A sample is [unix seconds, working set, usage], oldest first, as
// signal.MemoryHistory has them; only the working set is looked at, for the
// rest of the usage the kernel takes back before it kills.
package pattern

import (
	"slices"
	"time"
)

// The patterns.
const (
	// Leak: it grew over a long time up to the end.
	Leak = "leak"
	// Spike: it lived well below, and shot up at the end.
	Spike = "spike"
	// Steady: at the end it was where it had been before.
	Steady = "steady"
)

const (
	// leastSpan is the least time, in seconds, that a pattern is told of: a
	// program that starts takes memory too.
	leastSpan = 60
	// leastSamples is the least number of samples.
	leastSamples = 30
	// longestEnd and endShare bound the end in which a spike happens: a minute,
	// and a sixth of what is known.
	longestEnd = 60
	endShare   = 6
	// matters is the part of the limit, or of the highest working set where
	// there is none, that growth must make up.
	matters = 0.10
	// spikeShare is the part of the rise, from the usual level to the highest
	// of the end, that happened in the end. For a straight line it is 2/7.
	spikeShare = 0.5
	// before is how far above what it had been before a steady one may be.
	before = 1.05
)

// Of tells the pattern of the samples up to a death: Leak, Spike, Steady, or
// "" where there is too little or it is none of them. limit 0 is none.
//
// With end the last sixth of the time, at most a minute:
//   - spike: the end rose above all that was before, by a tenth of the limit
//     at least, and by half of the whole rise from the median before;
//   - leak: it grows (as Grows has it, over the last 2 minutes, 10 minutes or
//     all that is known), by a tenth of the limit in that time;
//   - steady: it does not grow, and the end is at most a twentieth above what
//     it had been before.
func Of(samples [][3]int64, limit int64) string {
	p, _ := Tell(samples, limit)
	return p
}

// Tell tells the pattern as Of does, and for a leak how it grew.
func Tell(samples [][3]int64, limit int64) (string, Growth) {
	if len(samples) < leastSamples {
		return "", Growth{}
	}
	last := samples[len(samples)-1][0]
	span := last - samples[0][0]
	if span < leastSpan {
		return "", Growth{}
	}
	end := last - min(longestEnd, span/endShare)
	var top, topBefore int64
	for _, s := range samples {
		if s[0] < end {
			topBefore = max(topBefore, s[1])
		} else {
			top = max(top, s[1])
		}
	}
	scale := float64(limit)
	if limit <= 0 {
		scale = float64(max(top, topBefore))
	}
	usual := medianBefore(samples, end)
	rise := float64(top - topBefore)
	if rise > 0 && rise >= matters*scale && rise >= spikeShare*float64(top-usual) {
		return Spike, Growth{}
	}
	grew := false
	for _, w := range [...]int64{windows[0], windows[1], (span + points) / points * points} {
		g, ok := growth(samples, w)
		if !ok || tooth(samples, w) {
			continue
		}
		w = min(w, span)
		if g.BytesPerSecond*float64(w) >= matters*scale {
			return Leak, Growth{g.BytesPerSecond, time.Duration(w) * time.Second}
		}
		grew = true
	}
	if !grew && float64(top) <= before*float64(topBefore) {
		return Steady, Growth{}
	}
	return "", Growth{}
}

// medianBefore is the median of the working set before end, of the highest of
// each of up to 60 parts, so that dense samples do not count more.
func medianBefore(samples [][3]int64, end int64) int64 {
	var highest [60]int64
	from := samples[0][0]
	width := max(1, (end-from+59)/60)
	n, part := 0, int64(-1)
	for _, s := range samples {
		if s[0] >= end {
			break
		}
		if p := (s[0] - from) / width; p != part && n < len(highest) {
			highest[n], part = s[1], p
			n++
		} else {
			highest[n-1] = max(highest[n-1], s[1])
		}
	}
	if n == 0 {
		return 0
	}
	slices.Sort(highest[:n])
	return highest[n/2]
}
