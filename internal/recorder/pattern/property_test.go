// SPDX-License-Identifier: Apache-2.0

package pattern

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

// lives gives many curves: walks with jumps, drops and trends.
func lives(n int) [][][3]int64 {
	r := rand.New(rand.NewPCG(3, 4))
	var out [][][3]int64
	for range n {
		level, trend, noise := 1000*r.Float64(), r.NormFloat64(), 10*r.Float64()
		out = append(out, lived(r.IntN(3600)+1, func(float64) float64 {
			if r.IntN(500) == 0 {
				level, trend = 1000*r.Float64(), r.NormFloat64()
			}
			level = math.Max(0, level+trend)
			return math.Max(0, level+noise*r.NormFloat64())
		}))
	}
	return out
}

// TestOf_IsOfTheShapeAlone: bytes or pages, today or yesterday, the pattern is
// the same, and so is the time until the limit.
func TestOf_IsOfTheShapeAlone(t *testing.T) {
	told := map[string]int{}
	for i, life := range lives(500) {
		want := Of(life, limit)
		told[want]++
		g, ok := Grows(life, limit)
		for _, factor := range []int64{2, 16} {
			other := make([][3]int64, len(life))
			for i, s := range life {
				other[i] = [3]int64{s[0] - 864000, s[1] * factor, 0}
			}
			if got := Of(other, limit*factor); got != want {
				t.Fatalf("curve %d: %q, times %d %q", i, want, factor, got)
			}
			g2, ok2 := Grows(other, limit*factor)
			if ok != ok2 || ok && math.Abs(g2.BytesPerSecond/g.BytesPerSecond/float64(factor)-1) > 1e-9 {
				t.Fatalf("curve %d: %+v, times %d %+v", i, g, factor, g2)
			}
		}
	}
	if told[Leak] == 0 || told[Spike] == 0 || told[Steady] == 0 {
		t.Errorf("curves that prove nothing: %v", told)
	}
}

// TestOf_Lines: each straight line is a leak if it makes up a tenth of the
// limit in what is known, steady if it falls, and never a spike.
func TestOf_Lines(t *testing.T) {
	for seconds := 61; seconds <= 3600; seconds += 37 {
		for _, rise := range []float64{-0.9, -0.2, 0.15, 0.5, 0.95} {
			from := math.Max(0, -1000*rise) + 10
			want := Leak
			if rise < 0 {
				want = Steady
			}
			c := line(from, 1000*rise/float64(seconds))
			if got := Of(lived(seconds, c), limit); got != want {
				t.Errorf("%d s, %+.0f MiB: %q, want %q", seconds, 1000*rise, got, want)
			}
		}
	}
}

// TestOf_Steps: a step up at the very end is a spike if it makes up a tenth of
// the limit, one down is steady, whatever came before was flat.
func TestOf_Steps(t *testing.T) {
	for seconds := 61; seconds <= 3600; seconds += 37 {
		for _, step := range []float64{-300, 0, 110, 600} {
			want := Steady
			if step > 0 {
				want = Spike
			}
			c := after(float64(seconds-2), noisy(flat(310), 1), flat(310+step))
			if got := Of(lived(seconds, c), limit); got != want {
				t.Errorf("%d s, %+.0f MiB: %q, want %q", seconds, step, got, want)
			}
		}
	}
}

// TestGrows_NotByChance: of what only moves up and down around its level, at
// most one in 200 is said to grow.
func TestGrows_NotByChance(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	wrong, leaks := 0, 0
	const tries = 4000
	for range tries {
		level, spread, memory := 900*r.Float64(), 100*r.Float64(), r.Float64()*0.98
		off := 0.0
		life := lived(r.IntN(3540)+60, func(float64) float64 {
			off = memory*off + (1-memory)*spread*r.NormFloat64()
			return level + off
		})
		if _, ok := Grows(life, limit); ok {
			wrong++
		}
		if Of(life, limit) == Leak {
			leaks++
		}
	}
	t.Logf("of %d: %d said to grow, %d called leaks", tries, wrong, leaks)
	if wrong > tries/200 || leaks > tries/1000 {
		t.Errorf("of %d: %d said to grow, %d called leaks", tries, wrong, leaks)
	}
}

// FuzzOf: any samples and any limit give one of the four words, and a time
// that is a number.
func FuzzOf(f *testing.F) {
	f.Add([]byte{}, int64(0))
	for _, life := range lives(20) {
		var b []byte
		for _, s := range life {
			b = binary.LittleEndian.AppendUint64(b, uint64(s[0]))
			b = binary.LittleEndian.AppendUint64(b, uint64(s[1]))
		}
		f.Add(b, int64(limit))
	}
	f.Fuzz(func(t *testing.T, b []byte, limit int64) {
		var life [][3]int64
		for ; len(b) >= 16 && len(life) < 600; b = b[16:] {
			life = append(life, [3]int64{int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))})
		}
		switch p := Of(life, limit); p {
		case "", Leak, Spike, Steady:
		default:
			t.Errorf("pattern %q", p)
		}
		g, ok := Grows(life, limit)
		if !ok {
			return
		}
		if s, near := g.Until(life[len(life)-1][1], limit); !near || math.IsNaN(s) || math.IsInf(s, 0) || s < 0 || !(g.BytesPerSecond > 0) {
			t.Errorf("%v s, near %t, %+v", s, near, g)
		}
	})
}

func BenchmarkGrows(b *testing.B) {
	life := lived(3600, noisy(flat(300), 5))
	b.ReportAllocs()
	for b.Loop() {
		Grows(life, limit)
	}
}
