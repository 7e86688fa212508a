// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"iter"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/coroner-dev/coroner/internal/death"
)

// shown is what a scrape shows of a tally.
type shown struct {
	pair
	last time.Time
}

// rows are what a scrape shows: the counters of kills of those that live also at
// 0, for each of the causes, and what was counted.
type rows struct {
	causes  []death.Cause
	living  map[owner]bool // false: there is no room for its zeros
	counted map[key]shown
}

// scrape copies the ledger, with those that live. Nothing is sent while the
// lock is held, so that a slow scraper does not hold up a death.
func (m *Metrics) scrape(known []Container, causes []death.Cause) rows {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.ledger
	l.scrape++
	now := m.opts.Now()
	r := rows{causes: causes, living: make(map[owner]bool, len(known)), counted: map[key]shown{}}
	for i := range known {
		if o := ownerOf(&known[i].Container); !known[i].Removed && !r.living[o] {
			r.living[o] = (len(r.living)+1)*len(causes) <= l.max
		}
	}
	for k, t := range l.tallies {
		if _, lives := r.living[k.owner]; lives {
			t.touched = now
			if slices.Contains(causes, k.cause) {
				r.counted[k] = shown{}
			}
		}
	}
	l.sweep(keepGone)
	for k, t := range l.tallies {
		seen := t.visible()
		t.shown = seen == t.taken
		if seen != (pair{}) || !t.shownLast.IsZero() {
			r.counted[k] = shown{seen, t.shownLast}
		}
	}
	return r
}

// has tells whether k is shown.
func (r rows) has(k key) bool {
	if r.zero(k) {
		return true
	}
	_, ok := r.counted[k]
	return ok
}

// zero tells whether k is shown also at 0.
func (r rows) zero(k key) bool { return slices.Contains(r.causes, k.cause) && r.living[k.owner] }

// keys are all that are shown.
func (r rows) keys() iter.Seq[key] {
	return func(yield func(key) bool) {
		for o, room := range r.living {
			for _, cause := range r.causes {
				if room && !yield(key{o, cause}) {
					return
				}
			}
		}
		for k := range r.counted {
			if !r.zero(k) && !yield(k) {
				return
			}
		}
	}
}

// size counts the keys.
func (r rows) size() (n int) {
	for _, room := range r.living {
		if room {
			n += len(r.causes)
		}
	}
	for k := range r.counted {
		if !r.zero(k) {
			n++
		}
	}
	return n
}

// folded is what a scrape shows of the deaths that had no room.
func (m *Metrics) folded() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(m.ledger.folded.kept, m.ledger.folded.freed)
}

func oomCauses() []death.Cause {
	var out []death.Cause
	for _, i := range death.Causes() {
		if i.OOM {
			out = append(out, i.Cause)
		}
	}
	return out
}

// agentCollector shows what the agent says of itself.
type agentCollector struct{ m *Metrics }

// Describe implements prometheus.Collector.
func (c agentCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, name := range []string{
		nodeKills, unattributed, sourceUp, sourceEvents, sourceLost, sourceLostOOM, sourceRejected, sourceErrors,
		sinkUp, sinkQueue, sinkDropped, sinkErrors, foldedDeaths, rosterDropped, nodeMemory, buildInfo,
	} {
		ch <- c.m.descs[name]
	}
}

// Collect implements prometheus.Collector.
func (c agentCollector) Collect(ch chan<- prometheus.Metric) {
	m := c.m
	m.gauge(ch, buildInfo, 1, m.build()...)
	m.count(ch, foldedDeaths, m.folded())
	if m.opts.Roster != nil {
		r := m.opts.Roster()
		m.count(ch, rosterDropped, r.NoRoom, "full")
		m.count(ch, rosterDropped, r.Disbelieved, "user")
	}
	if m.opts.Node != nil {
		n := m.opts.Node()
		if n.OOMKills != nil {
			m.count(ch, nodeKills, *n.OOMKills)
		}
		if n.Unattributed != nil {
			m.count(ch, unattributed, *n.Unattributed)
		}
	}
	if m.opts.NodeMemory != nil {
		for kind, n := range m.opts.NodeMemory() {
			m.gauge(ch, nodeMemory, float64(n), label(kind))
		}
	}
	if m.opts.Sources != nil {
		for _, s := range m.opts.Sources() {
			name := label(string(s.Source))
			m.gauge(ch, sourceUp, truth(s.Up), name)
			m.count(ch, sourceEvents, s.Events, name)
			m.count(ch, sourceLost, s.Lost, name)
			m.count(ch, sourceLostOOM, s.LostOOMEvidence, name)
			m.count(ch, sourceRejected, s.Rejected, name)
			m.count(ch, sourceErrors, s.Errors, name)
		}
	}
	if m.opts.Sinks != nil {
		for _, s := range m.opts.Sinks() {
			name := label(s.Sink)
			m.gauge(ch, sinkUp, truth(s.Up), name)
			m.gauge(ch, sinkQueue, float64(s.QueueLength), name)
			m.count(ch, sinkDropped, s.Dropped, name)
			m.count(ch, sinkErrors, s.Errors, name)
		}
	}
}

func (m *Metrics) count(ch chan<- prometheus.Metric, name string, v uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(m.descs[name], prometheus.CounterValue, float64(v), labels...)
}

func (m *Metrics) gauge(ch chan<- prometheus.Metric, name string, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(m.descs[name], prometheus.GaugeValue, v, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unix keeps the milliseconds, which is what Prometheus keeps of any time.
func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
