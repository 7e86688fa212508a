// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// maxSeries bounds the owners whose repeated deaths are counted.
const maxSeries = 10000

// run is the series of deaths of one owner by one cause.
type run struct {
	count       int
	first, last time.Time
}

// seriesPlace is where a case stands in its series.
type seriesPlace struct {
	key   string
	count int
}

// series tells that a death is one of many of the same owner and cause.
type series struct {
	runs map[string]*run
}

func newSeries() series { return series{runs: map[string]*run{}} }

// place counts c's death in its series, once, and moves it when an amendment
// changes its cause.
func (x *series) place(c *caseFile, d *death.Death) *death.Repeat {
	key := seriesKey(c, d.Cause)
	if key == "" {
		return nil
	}
	if c.place.key != key {
		if old := x.runs[c.place.key]; old != nil && old.count > 0 {
			old.count--
		}
		r := x.runs[key]
		if r == nil {
			if len(x.runs) >= maxSeries {
				x.shrink()
			}
			r = &run{first: d.Time}
			x.runs[key] = r
		}
		r.count++
		if d.Time.After(r.last) {
			r.last = d.Time
		}
		if d.Time.Before(r.first) {
			r.first = d.Time
		}
		c.place = seriesPlace{key, r.count}
	}
	return x.repeat(c)
}

func (x *series) repeat(c *caseFile) *death.Repeat {
	r := x.runs[c.place.key]
	if r == nil || c.place.count < 2 {
		return nil
	}
	rep := &death.Repeat{Count: c.place.count, First: r.first.UTC(), Last: c.at.UTC()}
	if span := rep.Last.Sub(rep.First); span >= time.Second {
		perHour := float64(rep.Count-1) / span.Hours()
		rep.PerHour = &perHour
	}
	return rep
}

// shrink forgets the half of the series that were quiet the longest.
func (x *series) shrink() {
	var newest, oldest time.Time
	for _, r := range x.runs {
		if newest.IsZero() || r.last.After(newest) {
			newest = r.last
		}
		if oldest.IsZero() || r.last.Before(oldest) {
			oldest = r.last
		}
	}
	middle := oldest.Add(newest.Sub(oldest) / 2)
	for k, r := range x.runs {
		if !r.last.After(middle) {
			delete(x.runs, k)
		}
	}
}

func seriesKey(c *caseFile, cause death.Cause) string {
	switch {
	case c.container != nil && c.container.ID != "":
		return string(cause) + "\x00" + c.container.ID
	case c.unit != "":
		return string(cause) + "\x00unit\x00" + c.unit
	case c.taskMemcg != "":
		return string(cause) + "\x00cgroup\x00" + c.taskMemcg
	}
	return ""
}
