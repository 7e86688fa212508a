// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"strconv"
	"strings"
)

// Row is one line of docs/benchmarks.md.
type Row struct {
	// ID names the row in notes.md and in results.
	ID      string
	Section string
	What    string
	// Unit is what all figures of the row are in.
	Unit string
	// Figures say what each figure is; nil: there is one.
	Figures []string
	// Goal bounds the figures, from above or, with AtLeast, from below; nil:
	// the row has none.
	Goal    []float64
	AtLeast bool
}

// Result is what was measured for a row.
type Result struct {
	Values []float64
	// Remark says what else one must know, in a few words.
	Remark string
}

// The sections of docs/benchmarks.md, in their order.
const (
	parsing  = "Parser"
	latency  = "From the kernel's kill to being visible"
	storming = "Storm"
	resting  = "At rest"
	starting = "Start and size"
	scraping = "Scrapes"
	engined  = "Beside real engines"
)

// crowds are how many containers run on the real engines.
var crowds = []int{5, 50, 200}

// sets are the agent's sources that latencies are measured with.
var sets = []struct {
	id, name string
	flags    []string
	// context: the figures of the kernel's log are waited for.
	context bool
	goal    []float64
}{
	{"all", "all sources", nil, true, []float64{1, 6}},
	{"bpf", "tracepoints alone (eBPF)", []string{"--no-source.kmsg", "--no-source.cgroup", "--source.tracepoint.mode=bpf"}, false, []float64{1, 6}},
	{"tracefs", "tracepoints alone (tracefs)", []string{"--no-source.kmsg", "--no-source.cgroup", "--source.tracepoint.mode=tracefs"}, false, []float64{1, 6}},
	{"kmsg", "kernel log alone", []string{"--no-source.tracepoint", "--no-source.cgroup"}, true, []float64{5, 15}},
	{"cgroup", "cgroup counters alone", []string{"--no-source.tracepoint", "--no-source.kmsg"}, false, nil},
}

// Rows are the lines of docs/benchmarks.md, in their order.
func Rows() []Row {
	spread := []string{"median", "99 %"}
	rows := []Row{
		{"parser.lines", parsing, "lines that are no OOM report", "GB/s", nil, []float64{1}, true},
		{"parser.lines.allocs", parsing, "the same, allocations in a line", "", nil, []float64{0}, false},
		{"parser.lines.peer", parsing, "the same, oomparser", "GB/s", nil, nil, false},
		{"parser.report", parsing, "an OOM report of a container", "µs", nil, nil, false},
		{"parser.report.peer", parsing, "the same, oomparser", "µs", nil, nil, false},
		{"parser.report.ratio", parsing, "the same, how many times as fast as oomparser", "x", nil, []float64{10}, true},
		{"parser.tasks.ratio", parsing, "an OOM report with 400 tasks, how many times as fast", "x", nil, []float64{10}, true},
		{"parser.raw", parsing, "lines that are no OOM report, from raw records of /dev/kmsg", "GB/s", nil, nil, false},
		{"parser.raw.ratio", parsing, "an OOM report of a container from raw records, how many times as fast", "x", nil, []float64{10}, true},
	}
	for _, s := range sets {
		rows = append(rows, Row{"kill." + s.id + ".metrics", latency, s.name + ": counted in /metrics", "ms", spread, s.goal, false},
			Row{"kill." + s.id + ".stream", latency, s.name + ": told on the API's event stream", "ms", spread, s.goal, false})
		if s.context {
			rows = append(rows, Row{"kill." + s.id + ".record", latency, s.name + ": with limit, usage and breakdown, on the stream", "ms", spread, []float64{6}, false})
		}
	}
	rows = append(rows,
		Row{"storm.kills", storming, "kills in 200 cgroups that are wrong or missing, of 10,000", "", nil, []float64{0}, false},
		Row{"storm.rate", storming, "kills a second, as fast as the machine kills", "", nil, nil, false},
		Row{"storm.lag", storming, "from the last kill to all being counted in /metrics", "ms", nil, nil, false},
		Row{"storm.cpu", storming, "the agent's CPU in a kill", "µs", nil, nil, false},
		Row{"storm.peak", storming, "the agent's peak memory (VmHWM)", "MiB", nil, nil, false},
	)
	for _, c := range []struct {
		n    string
		most float64
		cpu  []float64
	}{{"110", 30, []float64{.5}}, {"500", 45, nil}} {
		rows = append(rows,
			Row{"rest.rss." + c.n, resting, c.n + " containers: resident memory", "MiB", nil, []float64{c.most}, false},
			Row{"rest.anon." + c.n, resting, c.n + " containers: of it anonymous", "MiB", nil, nil, false},
			Row{"rest.cpu." + c.n, resting, c.n + " containers: CPU of one core over 30 s", "%", nil, c.cpu, false},
		)
	}
	rows = append(rows,
		Row{"start.answer", starting, "start of the process to the first answer of /-/ready", "ms", []string{"median", "worst"}, []float64{300, 300}, false},
		Row{"start.metrics", starting, "start of the process to the first answer of /metrics", "ms", []string{"median", "worst"}, []float64{300, 300}, false},
		Row{"start.ready", starting, "start of the process to /-/ready saying that all sources watch", "ms", []string{"median", "worst"}, nil, false},
		Row{"size.binary", starting, "bin/coroner, static and stripped", "MiB", nil, nil, false},
	)
	for _, c := range []struct {
		n    string
		goal []float64
	}{{"110", nil}, {"500", nil}, {"1000", []float64{10}}} {
		rows = append(rows,
			Row{"scrape.time." + c.n, scraping, "/metrics with " + c.n + " containers", "ms", spread, c.goal, false},
			Row{"scrape.size." + c.n, scraping, "the same, size", "KiB", nil, nil, false})
	}
	for _, n := range crowds {
		rows = append(rows, engineRows(n)...)
	}
	return rows
}

// engineRows are those of n containers on real engines; the goals are the
// largest crowd's.
func engineRows(n int) []Row {
	id, spread := strconv.Itoa(n), []string{"median", "99 %"}
	rss, cpu, scrape := []float64(nil), []float64(nil), []float64(nil)
	if n == crowds[len(crowds)-1] {
		rss, cpu, scrape = []float64{35}, []float64{1}, []float64{5}
	}
	costs := func(what, whose string) []Row {
		return []Row{
			{what + ".rss." + id, engined, whose + ": resident memory, while it is scraped", "MiB", nil, rss, false},
			{what + ".anon." + id, engined, whose + ": of it anonymous", "MiB", nil, nil, false},
			{what + ".after." + id, engined, whose + ": the same, after 100 scrapes without a pause", "MiB", nil, nil, false},
			{what + ".cpu." + id, engined, whose + ": CPU of one core over 30 s, scraped each 15 s", "%", nil, cpu, false},
			{what + ".wake." + id, engined, whose + ": how often a thread of the agent is woken", "/s", nil, nil, false},
			{what + ".scrape." + id, engined, whose + ": a scrape", "ms", spread, scrape, false},
		}
	}
	rows := costs("engines", id+" containers")
	if n == crowds[len(crowds)-1] {
		rows = append(rows, costs("docker", id+" containers, Docker alone asked")...)
	}
	return append(rows, []Row{
		{"engines.metrics." + id, engined, id + " containers: from the kernel's kill to being counted in /metrics", "ms", spread, []float64{1, 6}, false},
		{"engines.stream." + id, engined, id + " containers: from the kernel's kill to the API's event stream", "ms", spread, []float64{1, 6}, false},
	}...)
}

// figures writes values in a row's unit.
func (r Row) figures(values []float64) string {
	var parts []string
	for i, v := range values {
		s := number(v)
		if r.Unit != "" && r.Unit != "x" {
			s += " " + r.Unit
		}
		if i < len(r.Figures) {
			s = r.Figures[i] + " " + s
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

// goal writes what the row is to reach.
func (r Row) goal() string {
	if r.Goal == nil {
		return "–"
	}
	word := "at most "
	if r.AtLeast {
		word = "at least "
	}
	return word + r.figures(r.Goal)
}

// met tells whether the figures reach the goal.
func (r Row) met(values []float64) bool {
	for i, g := range r.Goal {
		if i >= len(values) || r.AtLeast && values[i] < g || !r.AtLeast && values[i] > g {
			return false
		}
	}
	return true
}

// number writes three digits that count.
func number(v float64) string {
	if v != 0 && v < 1000 && v > -1000 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return fmt.Sprintf("%.0f", v)
}
