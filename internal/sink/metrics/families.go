// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"
	"sync"

	dto "github.com/prometheus/client_model/go"

	"github.com/coroner-dev/coroner/internal/death"
)

// gatherer gives what the registry has, and the deaths beside it. There are
// six series for each container that lives, nearly all of them 0: a registry
// copies, checks, hashes and sorts each anew at each scrape.
type gatherer struct {
	m          *Metrics
	order      order
	identities identities
	owners     ownerPairs
}

// Gather implements prometheus.Gatherer.
func (g *gatherer) Gather() ([]*dto.MetricFamily, error) {
	families, err := g.m.registry.Gather() // what is wrong with one does not hide the others
	var known []Container
	if f := g.m.opts.Containers; f != nil {
		known = f()
	}
	g.owners.forget(len(known))
	families = append(families, g.deaths(known)...)
	families = append(families, g.dropIn(known)...)
	families = append(families, g.memory()...)
	slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return families, err
}

// deaths shows the ledger.
func (g *gatherer) deaths(known []Container) []*dto.MetricFamily {
	causes := oomCauses()
	rows := g.m.scrape(known, causes)
	kills, ends, last := family(oomKills), family(terminations), family(lastDeath)
	entries := g.order.of(rows, &g.owners)
	kills.Metric = make([]*dto.Metric, 0, len(entries))
	for _, e := range entries {
		t := rows.counted[e.key]
		switch {
		case t.kills > 0:
			kills.Metric = append(kills.Metric, counter(e.pairs, t.kills))
		case slices.Contains(causes, e.cause):
			kills.Metric = append(kills.Metric, e.zero)
		}
		switch {
		case t.ends > 0:
			ends.Metric = append(ends.Metric, counter(e.pairs, t.ends))
		case !t.last.IsZero(): // survived so far: the first end must be seen to rise
			ends.Metric = append(ends.Metric, e.zero)
		}
		if !t.last.IsZero() {
			last.Metric = append(last.Metric, gauge(e.pairs, unix(t.last)))
		}
	}
	return slices.DeleteFunc([]*dto.MetricFamily{kills, ends, last}, func(f *dto.MetricFamily) bool { return len(f.Metric) == 0 })
}

// family is a row of the table without its metrics.
func family(name string) *dto.MetricFamily {
	r := row(name)
	kind := dto.MetricType_COUNTER
	if r.Type == typeGauge {
		kind = dto.MetricType_GAUGE
	}
	return &dto.MetricFamily{Name: &r.Name, Help: &r.Help, Type: &kind}
}

// entry is a key with its label pairs, in the order of their names. What it
// points to is shared by all scrapes, and by entries of the same owner or
// cause, so it is not changed.
type entry struct {
	key
	pairs []*dto.LabelPair
	zero  *dto.Metric
}

// counter and gauge make a sample in one piece: a scrape has thousands.
func counter(pairs []*dto.LabelPair, n uint64) *dto.Metric {
	s := &struct {
		metric  dto.Metric
		counter dto.Counter
		value   float64
	}{value: float64(n)}
	s.metric.Label, s.metric.Counter, s.counter.Value = pairs, &s.counter, &s.value
	return &s.metric
}

func gauge(pairs []*dto.LabelPair, v float64) *dto.Metric {
	s := &struct {
		metric dto.Metric
		gauge  dto.Gauge
		value  float64
	}{value: v}
	s.metric.Label, s.metric.Gauge, s.gauge.Value = pairs, &s.gauge, &s.value
	return &s.metric
}

// order keeps the keys of the last scrape, in the order of the exposition
// format, for the next: sorting thousands of keys and making their label
// pairs anew is most of a scrape's cost, and they seldom change.
type order struct {
	mu   sync.Mutex
	last []entry
}

// of gives the keys of rows in order.
func (o *order) of(rows rows, owners *ownerPairs) []entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.same(rows) {
		return o.last
	}
	o.last = make([]entry, 0, rows.size())
	causes := map[death.Cause]*dto.LabelPair{}
	zero := counter(nil, 0).Counter
	for k := range rows.keys() {
		if causes[k.cause] == nil {
			causes[k.cause] = pairOf("cause", string(k.cause))
		}
		e := entry{key: k, pairs: append([]*dto.LabelPair{causes[k.cause]}, owners.of(k.owner)...)}
		e.zero = &dto.Metric{Label: e.pairs, Counter: zero}
		o.last = append(o.last, e)
	}
	// By the labels in the order of their names, as the exposition sorts.
	slices.SortFunc(o.last, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.cause, b.cause), cmp.Compare(a.container, b.container),
			cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.pod, b.pod))
	})
	return o.last
}

// ownerPairs keeps the label pairs of owners, which all their series share.
type ownerPairs struct {
	mu    sync.Mutex
	known map[owner][]*dto.LabelPair
}

func (p *ownerPairs) of(o owner) []*dto.LabelPair {
	p.mu.Lock()
	defer p.mu.Unlock()
	pairs := p.known[o]
	if pairs == nil {
		pairs = []*dto.LabelPair{pairOf("container", o.container), pairOf("namespace", o.namespace), pairOf("pod", o.pod)}
		p.known[o] = pairs
	}
	return pairs
}

// forget begins anew where most of those known are of owners that went.
func (p *ownerPairs) forget(living int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) > 2*living+100 {
		p.known = map[owner][]*dto.LabelPair{}
	}
}

func pairOf(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

func (o *order) same(rows rows) bool {
	if len(o.last) != rows.size() {
		return false
	}
	for _, e := range o.last {
		if !rows.has(e.key) {
			return false
		}
	}
	return true
}
