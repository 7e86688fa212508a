// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// maxSeries bounds the owners whose repeated deaths are counted.
const maxSeries = 10000

// minRateSpan is the least time that a rate is told of: some deaths within
// seconds say nothing of an hour.
const minRateSpan = 3 * time.Minute

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
	key := seriesKey(c, d)
	if key == "" {
		return nil
	}
	if c.place.key != key {
		if old := x.runs[c.place.key]; old != nil && old.count > 0 {
			if old.count--; old.count == 0 {
				delete(x.runs, c.place.key) // its first and last are no more
			}
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

// recall places a death that was told earlier: its story may be longer than what
// the history gives back of it.
func (x *series) recall(c *caseFile, d *death.Death) {
	x.place(c, d)
	r, told := x.runs[c.place.key], d.Repeat
	if r == nil || told == nil {
		return
	}
	if told.Count > r.count {
		r.count, c.place.count = told.Count, told.Count
	}
	if !told.First.IsZero() && told.First.Before(r.first) {
		r.first = told.First
	}
}

func (x *series) repeat(c *caseFile) *death.Repeat {
	r := x.runs[c.place.key]
	if r == nil || c.place.count < 2 {
		return nil
	}
	rep := &death.Repeat{Count: c.place.count, First: r.first.UTC(), Last: c.at.UTC()}
	if span := rep.Last.Sub(rep.First); span >= minRateSpan {
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

// seriesKey tells whose deaths by one cause are one series. A container that
// is made anew under the names of the one before it goes on with its series.
func seriesKey(c *caseFile, d *death.Death) string {
	var owner []string
	switch {
	case d.Container != nil && d.Container.ID != "":
		owner = seriesOwner(d.Container)
	case c.unit != "":
		owner = []string{"unit", c.unit}
	case c.taskMemcg != "":
		owner = []string{"cgroup", c.taskMemcg}
	default:
		return ""
	}
	return string(d.Cause) + "\x00" + strings.Join(owner, "\x00")
}

// The labels that Docker Compose gives.
const (
	composeProject = "com.docker.compose.project"
	composeService = "com.docker.compose.service"
)

// seriesOwner is what stays of a container when it is made anew.
func seriesOwner(c *death.Container) []string {
	switch p := c.Pod; {
	case p != nil && p.Namespace != "" && p.Name != "" && c.Name != "":
		return []string{"pod", p.Namespace, p.Name, c.Name}
	case c.Workload != nil && c.Workload.Kind != death.WorkloadCompose:
		return []string{"workload", c.Workload.Kind, c.Workload.Group, c.Workload.Name} // each task has a name of its own
	case c.Name != "" && c.Name != c.ID:
		return []string{"name", c.Runtime, c.Labels[composeProject], c.Labels[composeService], inNamespace(c, ownName(c))}
	}
	return []string{"id", inNamespace(c, c.ID)}
}

// inNamespace is a name or an id that is one only within containerd's namespace.
func inNamespace(c *death.Container, name string) string {
	if c.Namespace == "" {
		return name
	}
	return c.Namespace + "/" + name
}

// ownName is a container's name without what Docker Compose puts before it
// while it makes the next one.
func ownName(c *death.Container) string {
	return strings.TrimPrefix(c.Name, c.ID[:min(len(c.ID), 12)]+"_")
}
