// SPDX-License-Identifier: Apache-2.0

package pattern

import (
	"math"
	"math/rand/v2"
	"testing"
)

const (
	mib   = 1 << 20
	limit = 1000 * mib
)

// curve gives the working set at each second of a life, in MiB.
type curve func(second float64) float64

// lived is what a recorder keeps of a curve: the highest of each ten seconds,
// and each second of the last two minutes.
func lived(seconds int, c curve) [][3]int64 {
	var out [][3]int64
	from := max(0, (seconds-120+9)/10*10)
	for s := max(0, seconds-3600); s < seconds; s++ {
		v := int64(c(float64(s)) * mib)
		v = max(0, v) / 4096 * 4096
		if s < from && s%10 != 0 && len(out) > 0 {
			last := &out[len(out)-1]
			last[1] = max(last[1], v)
			continue
		}
		out = append(out, [3]int64{1_700_000_000 + int64(s), v, v + mib})
	}
	return out
}

// noisy adds noise of so many MiB, always the same.
func noisy(c curve, spread float64) curve {
	r := rand.New(rand.NewPCG(1, 2))
	return func(s float64) float64 { return c(s) + spread*r.NormFloat64() }
}

func flat(level float64) curve { return func(float64) float64 { return level } }
func line(from, perSecond float64) curve {
	return func(s float64) float64 { return from + perSecond*s }
}
func saw(low, high, period float64) curve { return sawOn(flat(low), high-low, period) }
func after(at float64, a, b curve) curve {
	return func(s float64) float64 { return pick(s < at, a, b)(s) }
}
func bounded(c curve, most float64) curve { return func(s float64) float64 { return min(most, c(s)) } }
func fills(to, scale float64) curve {
	return func(s float64) float64 { return to * (1 - math.Exp(-s/scale)) }
}
func doubling(from, seconds float64) curve {
	return func(s float64) float64 { return from * math.Exp2(s/seconds) }
}

func sawOn(floor curve, height, period float64) curve {
	return func(s float64) float64 { return floor(s) + height*math.Mod(s, period)/period }
}

func pick(first bool, a, b curve) curve {
	if first {
		return a
	}
	return b
}

// TestGrows: the limit is 1000 MiB; eta is what is true of the curve without
// its noise, and told within a third.
func TestGrows(t *testing.T) {
	for _, tt := range []struct {
		name    string
		seconds int
		curve   curve
		eta     float64 // 0: it does not grow, or nobody can say
	}{
		{"a leak", 300, line(100, 1), 600},
		{"a leak with noise", 300, noisy(line(100, 1), 10), 600},
		{"a leak of one minute", 60, line(100, 4), 165},
		{"a leak that began two minutes ago", 3600, after(3480, flat(200), line(200-3480, 1)), 680},
		{"a slow leak, seen in an hour", 3600, noisy(line(100, 0.05), 5), 14400},
		{"a slow leak, not seen in two minutes", 120, noisy(line(100, 0.05), 5), 0},
		{"a leak so slow that it ends in a month", 3600, line(100, 0.0003), 0},
		{"a leak below a garbage collector", 3600, sawOn(line(100, 0.1), 100, 20), 5400},
		{"a leak below a slow garbage collector", 3600, sawOn(line(100, 0.2), 60, 90), 605},
		{"a leak that gets faster, at its present rate", 600, doubling(10, 100), 82},
		{"steady", 3600, flat(500), 0},
		{"steady with noise", 3600, noisy(flat(500), 20), 0},
		{"steady at its limit", 3600, noisy(flat(990), 1), 0},
		{"a garbage collector of seconds", 3600, saw(200, 700, 5), 0},
		{"of half a minute", 3600, saw(200, 700, 30), 0},
		{"of 100 seconds, seen as it rises", 3590, saw(200, 700, 100), 0},
		{"of five minutes, seen as it rises", 3550, saw(200, 700, 300), 0},
		{"of ten minutes, seen as it rises", 3500, saw(200, 700, 600), 0},
		{"a collector that did not run this time", 3600, after(3000, saw(200, 400, 100), line(200-3000, 1)), 200},
		{"a spike just now", 3600, after(3597, flat(200), flat(900)), 0},
		{"a step a minute ago", 3600, after(3540, noisy(flat(200), 4), noisy(flat(600), 4)), 0},
		{"a step half an hour ago", 3600, after(1800, noisy(flat(200), 4), noisy(flat(600), 4)), 0},
		{"a cache that has filled", 3600, noisy(fills(600, 600), 2), 0},
		{"a program that starts", 30, line(10, 20), 0},
		{"it shrinks", 3600, line(900, -0.1), 0},
		{"one sample", 1, flat(5), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			samples := lived(tt.seconds, tt.curve)
			g, ok := Grows(samples, limit)
			eta, near := g.Until(samples[len(samples)-1][1], limit)
			if ok != (tt.eta != 0) || ok && (!near || eta < tt.eta*2/3 || eta > tt.eta*4/3) {
				t.Errorf("%.0f s (%+v, %t), want %.0f s", eta, g, ok, tt.eta)
			}
		})
	}
}

func TestGrows_NoLimitNoSamples(t *testing.T) {
	if g, ok := Grows(lived(300, line(1, 1)), 0); ok {
		t.Errorf("without a limit: %+v", g)
	}
	if g, ok := Grows(nil, limit); ok {
		t.Errorf("without samples: %+v", g)
	}
}

func TestUntil(t *testing.T) {
	g := Growth{BytesPerSecond: mib, Window: 120e9}
	for _, tt := range []struct {
		workingSet int64
		want       float64
		near       bool
	}{{900 * mib, 100, true}, {limit, 0, true}, {limit + mib, 0, true}, {0, 1000, true}} {
		if got, near := g.Until(tt.workingSet, limit); got != tt.want || near != tt.near {
			t.Errorf("%d: %v %t, want %v", tt.workingSet, got, near, tt.want)
		}
	}
	if s, near := (Growth{1, 120e9}).Until(0, limit); near {
		t.Errorf("two minutes tell of %v s", s)
	}
}

func TestOf(t *testing.T) {
	const none = ""
	for _, tt := range []struct {
		name    string
		seconds int
		curve   curve
		limit   int64
		want    string
	}{
		{"a leak to the limit", 600, bounded(line(100, 1.5), 1000), limit, Leak},
		{"a leak with noise", 600, bounded(noisy(line(100, 1.5), 20), 1000), limit, Leak},
		{"a leak of two minutes, with the death's last second", 120, after(118, line(20, 8.2), flat(30)), limit, Leak},
		{"a leak of an hour", 3600, line(100, 0.25), limit, Leak},
		{"a leak that began ten minutes ago", 3600, after(3000, noisy(flat(300), 5), line(300-3000*1.1, 1.1)), limit, Leak},
		{"a leak below a garbage collector", 3600, sawOn(line(100, 0.2), 100, 20), limit, Leak},
		{"a leak without a limit", 600, line(100, 1.5), 0, Leak},
		{"a spike", 3600, after(3598, flat(200), flat(1000)), limit, Spike},
		{"a spike with noise before", 600, after(598, noisy(flat(200), 20), flat(1000)), limit, Spike},
		{"a spike that was over when it was seen last", 600, after(590, flat(200), after(594, flat(990), flat(10))), limit, Spike},
		{"a spike of 20 seconds", 600, after(580, flat(200), line(200-580*40, 40)), limit, Spike},
		{"a spike after a leak", 600, after(597, line(100, 0.2), flat(1000)), limit, Spike},
		{"a spike without a limit", 600, after(598, flat(200), flat(1000)), 0, Spike},
		{"a spike of a young one", 61, after(58, flat(100), flat(1000)), limit, Spike},
		{"steady", 600, flat(300), limit, Steady},
		{"steady with noise", 3600, noisy(flat(300), 10), limit, Steady},
		{"a garbage collector", 3600, saw(300, 700, 30), limit, Steady},
		{"a slow garbage collector, as it rises", 3500, saw(300, 700, 600), limit, Steady},
		{"it shrinks", 600, line(900, -1), limit, Steady},
		{"all given back before the end", 600, after(500, flat(800), flat(100)), limit, Steady},
		{"a step halfway", 600, after(300, flat(300), flat(600)), limit, Steady},
		{"nothing", 600, flat(0), limit, Steady},
		{"a program that starts", 40, line(10, 20), limit, none},
		{"a little growth", 3600, line(300, 0.01), limit, none},
		{"a step of a little", 600, after(595, flat(300), flat(360)), limit, none},
		{"one sample", 1, flat(100), limit, none},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Of(lived(tt.seconds, tt.curve), tt.limit); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	if got := Of(nil, limit); got != none {
		t.Errorf("no samples: %q", got)
	}
}
