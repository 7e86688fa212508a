// SPDX-License-Identifier: Apache-2.0

// Package metrics is the sink that tells Prometheus: it counts deaths, and at
// each scrape asks the agent what its sources and sinks have done. Every
// metric is a row of Table. It has a registry of its own; nothing is global.
package metrics

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/coroner-dev/coroner/internal/death"
)

// DefaultMaxSeries bounds the label sets of deaths where Options do not.
const DefaultMaxSeries = 10_000

// Options set up Metrics. The functions are called at each scrape, from
// several goroutines; a nil one leaves its metrics out.
type Options struct {
	Version  string
	Revision string
	// Sources tells what each source has done since the start.
	Sources func() []SourceStat
	// Sinks tells the same of the sinks.
	Sinks func() []SinkStat
	// Node tells what is known of the machine's own count.
	Node func() NodeStat
	// Roster gives what was told of containers in vain; nil: it is not shown.
	Roster func() RosterStat
	// Containers tells which containers there are, and were until lately.
	Containers func() []Container
	// Memory tells what the living containers hold.
	Memory func() []Memory
	// NodeMemory tells the figures of the node's memory map by their kind.
	NodeMemory func() map[string]int64
	// MaxSeries bounds the label sets of deaths; 0 means DefaultMaxSeries.
	MaxSeries int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log takes what goes wrong in a scrape; nil discards it.
	Log *slog.Logger
}

// Container is one that is known.
type Container struct {
	death.Container
	// Restarts are its starts after the first; for a pod's container, over all
	// its ids.
	Restarts int
	// ExitCode is how it last ended.
	ExitCode int
	// Removed: it is there no more.
	Removed bool
}

// SourceStat is what a source has done since the start.
type SourceStat struct {
	Source death.Source
	Up     bool
	Events uint64
	Lost   uint64
	// LostOOMEvidence are those of Lost that may have told of an OOM kill.
	LostOOMEvidence uint64
	Rejected        uint64
	Errors          uint64
}

// SinkStat is what a sink has done since the start.
type SinkStat struct {
	Sink        string
	Up          bool
	QueueLength int
	Dropped     uint64
	Errors      uint64
}

// NodeStat is the machine's own count of OOM kills. A nil value is not known.
type NodeStat struct {
	// OOMKills is what /proc/vmstat counted since the agent first ran.
	OOMKills *uint64
	// Unattributed is how many of these have no death.
	Unattributed *uint64
}

// RosterStat counts what engines told of containers in vain.
type RosterStat struct {
	// NoRoom is of containers that there was no room for, Disbelieved what
	// users' engines told of others' containers.
	NoRoom, Disbelieved uint64
}

// Metrics counts deaths and serves them. It is safe for concurrent use.
type Metrics struct {
	opts      Options
	registry  *prometheus.Registry
	gatherer  prometheus.Gatherer
	handler   http.Handler
	descs     map[string]*prometheus.Desc
	detection *prometheus.HistogramVec

	mu     sync.Mutex
	ledger *ledger
	byID   *ledger // OOM kills by container id
}

// New returns Metrics that have counted nothing.
func New(o Options) *Metrics {
	if o.MaxSeries <= 0 {
		o.MaxSeries = DefaultMaxSeries
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	det := row(detection)
	m := &Metrics{
		opts:     o,
		registry: prometheus.NewPedanticRegistry(),
		descs:    descs(),
		detection: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: det.Name, Help: det.Help, Buckets: detectionBuckets(),
		}, det.Labels),
		ledger: newLedger(o.MaxSeries, maxRemembered, o.Now, ownerKey),
		byID:   newLedger(o.MaxSeries, maxRememberedByID, o.Now, idKey),
	}
	m.registry.MustRegister(
		m.detection,
		agentCollector{m},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.gatherer = &gatherer{m: m}
	m.handler = inLargeParts(promhttp.HandlerFor(m.gatherer, promhttp.HandlerOpts{
		ErrorLog: scrapeLog{o.Log},
		// One bad series must not hide the others.
		ErrorHandling:     promhttp.ContinueOnError,
		Registry:          m.registry,
		EnableOpenMetrics: true,
	}))
	return m
}

// Take counts a death: its first revision, and what amendments add. A scrape
// shows it when what comes back was kept, or let out.
func (m *Metrics) Take(d *death.Death) Change {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Change{m.ledger.take(d), m.byID.take(d)}
}

// Detected notes how long the source that told of a death first took.
func (m *Metrics) Detected(source death.Source, seconds float64) {
	m.detection.WithLabelValues(string(source)).Observe(max(0, seconds))
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler { return m.handler }

// Gatherer gives the metrics to code in this process.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.gatherer }

// build gives the values of the labels of coroner_build_info.
func (m *Metrics) build() []string {
	return []string{label(m.opts.Version), label(m.opts.Revision), runtime.Version()}
}

// scrapeLog makes a slog.Logger what promhttp wants.
type scrapeLog struct{ log *slog.Logger }

// Println takes an error of a scrape.
func (s scrapeLog) Println(v ...any) {
	for _, e := range v {
		err, ok := e.(error)
		var gone *net.OpError
		if ok && !errors.As(err, &gone) { // who went away misses nothing
			s.log.Error("metrics incomplete", "err", err)
		}
	}
}
