// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/coroner-dev/coroner/internal/death"
)

// shown is what a scrape shows of a tally.
type shown struct {
	pair
	last time.Time
}

// scrape copies the ledger, with zeros for what lives. Nothing is sent while
// the lock is held, so that a slow scraper does not hold up a death.
func (m *Metrics) scrape(known []Container, causes []death.Cause) map[key]shown {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.ledger
	l.scrape++
	now := m.opts.Now()
	rows := make(map[key]shown, len(l.tallies)+len(known)*len(causes))
	for i := range known {
		if known[i].Removed {
			continue
		}
		o := ownerOf(&known[i].Container)
		for _, cause := range causes {
			k := key{o, cause}
			t := l.tallies[k]
			if t != nil {
				t.touched = now
			}
			if t != nil || len(rows) < l.max {
				rows[k] = shown{}
			}
		}
	}
	l.sweep(keepGone)
	for k, t := range l.tallies {
		seen := t.visible()
		t.shown = seen == t.taken
		if seen != (pair{}) || !t.shownLast.IsZero() {
			rows[k] = shown{seen, t.shownLast}
		}
	}
	return rows
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
		sinkUp, sinkQueue, sinkDropped, sinkErrors, foldedDeaths, buildInfo,
	} {
		ch <- c.m.descs[name]
	}
}

// Collect implements prometheus.Collector.
func (c agentCollector) Collect(ch chan<- prometheus.Metric) {
	m := c.m
	m.gauge(ch, buildInfo, 1, m.build()...)
	m.count(ch, foldedDeaths, m.folded())
	if m.opts.Node != nil {
		n := m.opts.Node()
		if n.OOMKills != nil {
			m.count(ch, nodeKills, *n.OOMKills)
		}
		if n.Unattributed != nil {
			m.count(ch, unattributed, *n.Unattributed)
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
