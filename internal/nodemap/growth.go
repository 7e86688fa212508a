// SPDX-License-Identifier: Apache-2.0

package nodemap

import "time"

// How far back growth is told, and how often a sample is taken for that.
const (
	Window   = 5 * time.Minute
	Interval = 30 * time.Second
)

// Sample are the figures of one time: those of the map by kind, and the
// working sets of cgroups by path.
type Sample struct {
	At     time.Time
	Kinds  map[string]int64
	Groups map[string]int64
}

// Trend keeps the samples of the last minutes.
type Trend struct{ samples []Sample }

// Add takes a sample; those before the window go, but for one that still
// reaches back to its beginning.
func (t *Trend) Add(s Sample) {
	t.samples = append(t.samples, s)
	drop := 0
	for drop+1 < len(t.samples) && !t.samples[drop+1].At.After(s.At.Add(-Window)) {
		drop++
	}
	t.samples = append(t.samples[:0:0], t.samples[drop:]...)
}

// Oldest is the sample that growth is told from; zero: there is none.
func (t *Trend) Oldest() Sample {
	if len(t.samples) == 0 {
		return Sample{}
	}
	return t.samples[0]
}

// SampleOf is what a Trend keeps of facts.
func SampleOf(f Facts) Sample {
	b := newBuilder(Input{Facts: f})
	b.figures()
	s := Sample{At: f.Time, Kinds: make(map[string]int64, len(b.out.Memory)), Groups: make(map[string]int64, len(f.Groups)+len(f.Pods))}
	for kind, fig := range b.out.Memory {
		s.Kinds[kind] = fig.Bytes
	}
	for _, gs := range [][]Group{f.Groups, b.groups, f.Pods} {
		for i := range gs {
			s.Groups[gs[i].key()] = gs[i].WorkingSetBytes
		}
	}
	return s
}

// key tells what is left in a cgroup from the cgroup itself.
func (g *Group) key() string {
	if g.Rest {
		return g.Path + " rest"
	}
	return g.Path
}
