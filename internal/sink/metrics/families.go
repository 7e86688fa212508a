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
}

// Gather implements prometheus.Gatherer.
func (g *gatherer) Gather() ([]*dto.MetricFamily, error) {
	families, err := g.m.registry.Gather() // what is wrong with one does not hide the others
	var known []Container
	if f := g.m.opts.Containers; f != nil {
		known = f()
	}
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
	kills.Metric = make([]*dto.Metric, 0, len(rows))
	for _, e := range g.order.of(rows) {
		t := rows[e.key]
		switch {
		case t.kills > 0:
			kills.Metric = append(kills.Metric, e.counter(t.kills))
		case slices.Contains(causes, e.cause):
			kills.Metric = append(kills.Metric, e.zero)
		}
		if t.ends > 0 {
			ends.Metric = append(ends.Metric, e.counter(t.ends))
		}
		if !t.last.IsZero() {
			at := unix(t.last)
			last.Metric = append(last.Metric, &dto.Metric{Label: e.pairs, Gauge: &dto.Gauge{Value: &at}})
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

func (e entry) counter(n uint64) *dto.Metric {
	v := float64(n)
	return &dto.Metric{Label: e.pairs, Counter: &dto.Counter{Value: &v}}
}

// order keeps the keys of the last scrape, in the order of the exposition
// format, for the next: sorting thousands of keys and making their label
// pairs anew is most of a scrape's cost, and they seldom change.
type order struct {
	mu   sync.Mutex
	last []entry
}

// of gives the keys of rows in order.
func (o *order) of(rows map[key]shown) []entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.same(rows) {
		return o.last
	}
	o.last = make([]entry, 0, len(rows))
	owners, causes := map[owner][]*dto.LabelPair{}, map[death.Cause]*dto.LabelPair{}
	zero := entry{}.counter(0).Counter
	for k := range rows {
		if owners[k.owner] == nil {
			owners[k.owner] = []*dto.LabelPair{pairOf("container", k.container), pairOf("namespace", k.namespace), pairOf("pod", k.pod)}
		}
		if causes[k.cause] == nil {
			causes[k.cause] = pairOf("cause", string(k.cause))
		}
		e := entry{key: k, pairs: append([]*dto.LabelPair{causes[k.cause]}, owners[k.owner]...)}
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

func pairOf(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

func (o *order) same(rows map[key]shown) bool {
	if len(o.last) != len(rows) {
		return false
	}
	for _, e := range o.last {
		if _, ok := rows[e.key]; !ok {
			return false
		}
	}
	return true
}
