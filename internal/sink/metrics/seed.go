// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// Count is the value of the counters of one set of labels. Counts kept over a
// restart let the counters go on.
type Count struct {
	Namespace    string      `json:"namespace,omitempty"`
	Pod          string      `json:"pod,omitempty"`
	Container    string      `json:"container,omitempty"`
	Cause        death.Cause `json:"cause"`
	OOMKills     uint64      `json:"oom_kills"`
	Terminations uint64      `json:"terminations"`
	Last         time.Time   `json:"last"`
}

// Counts gives the counters as they are, sorted by their labels.
func (m *Metrics) Counts() []Count {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Count, 0, len(m.ledger.tallies))
	for k, t := range m.ledger.tallies {
		out = append(out, Count{k.namespace, k.pod, k.container, k.cause, t.kills, t.ends, t.last})
	}
	slices.SortFunc(out, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod),
			cmp.Compare(a.Container, b.Container), cmp.Compare(a.Cause, b.Cause))
	})
	return out
}

// Seed lets the counters go on from counts of an earlier run. They must be all
// that was shown, or none: Prometheus takes a counter that comes back lower
// for one that started anew, and would count the seed as an increase.
func (m *Metrics) Seed(counts []Count) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range counts {
		k := key{owner{label(c.Namespace), label(c.Pod), label(c.Container)}, death.Cause(label(string(c.Cause)))}
		k, _ = m.ledger.room(k)
		t := m.ledger.tally(k)
		t.kills += c.OOMKills
		t.ends += c.Terminations
		if c.Last.After(t.last) {
			t.last = c.Last
		}
		t.touched = m.opts.Now()
	}
}

// Remember says that these deaths are in the counters already, as far as they
// are known here: their later revisions add only what is new.
func (m *Metrics) Remember(deaths []death.Death) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range deaths {
		d := &deaths[i]
		if _, known := m.ledger.deaths[d.ID]; known {
			continue
		}
		k, _ := m.ledger.room(keyOf(d))
		m.ledger.remember(d.ID, &counted{
			key: k, kills: d.OOMKills(), ended: d.Subject == death.SubjectContainer, scrape: m.ledger.scrape,
		})
	}
}
