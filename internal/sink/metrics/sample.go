// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// sample is one value of a counter or gauge with label pairs made before.
type sample struct {
	desc    *prometheus.Desc
	pairs   []*dto.LabelPair
	counter bool
	value   float64
}

// Desc implements prometheus.Metric.
func (s sample) Desc() *prometheus.Desc { return s.desc }

// Write implements prometheus.Metric.
func (s sample) Write(out *dto.Metric) error {
	out.Label = s.pairs
	if s.counter {
		out.Counter = &dto.Counter{Value: &s.value}
	} else {
		out.Gauge = &dto.Gauge{Value: &s.value}
	}
	return nil
}

// entry is a key with its label pairs.
type entry struct {
	key
	pairs []*dto.LabelPair
}

// order keeps the keys of the last scrape, in the order of the exposition
// format, for the next: sorting thousands of keys and making their label
// pairs anew is most of a scrape's cost, and they seldom change.
type order struct {
	mu   sync.Mutex
	last []entry
}

// of gives the keys of rows in order. All metrics of the keys have the labels
// of desc.
func (o *order) of(rows map[key]shown, desc *prometheus.Desc) []entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.same(rows) {
		return o.last
	}
	o.last = make([]entry, 0, len(rows))
	for k := range rows {
		values := []string{k.namespace, k.pod, k.container, string(k.cause)}
		o.last = append(o.last, entry{k, prometheus.MakeLabelPairs(desc, values)})
	}
	// By the labels in the order of their names, as the exposition sorts.
	slices.SortFunc(o.last, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.cause, b.cause), cmp.Compare(a.container, b.container),
			cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.pod, b.pod))
	})
	return o.last
}

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
