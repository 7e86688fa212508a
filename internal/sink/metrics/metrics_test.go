// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

var update = flag.Bool("update", false, "rewrite golden files and docs/metrics.md")

// start is when the clock of these tests begins.
var start = time.Date(2026, 3, 4, 5, 6, 7, 890_000_000, time.UTC)

// clock is moved by hand.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func process(pid int, fate death.Fate) death.Process {
	return death.Process{PID: pid, Comm: "worker", Fate: fate}
}

// kill is a death of a process in container "web" of the pod "shop".
func kill(id string, cause death.Cause, victims ...death.Process) death.Death {
	return death.Death{
		ID: id, Revision: 1, Time: start, Subject: death.SubjectProcess, Cause: cause, Processes: victims,
		Container: &death.Container{ID: strings.Repeat("ab", 32), Name: "web", Pod: &death.Pod{Namespace: "prod", Name: "shop"}},
	}
}

func amended(d death.Death, change func(*death.Death)) death.Death {
	d.Revision++
	change(&d)
	return d
}

// take counts deaths that the history keeps at once.
func take(m *metrics.Metrics, deaths ...death.Death) {
	var all metrics.Change
	for i := range deaths {
		all.Join(m.Take(&deaths[i]))
	}
	m.Kept(m.Prepare(all, false))
}

// scrape returns coroner's own lines, without the comments.
func scrape(t *testing.T, m *metrics.Metrics) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for line := range strings.Lines(body(t, m)) {
		if i := strings.LastIndexByte(line, ' '); strings.HasPrefix(line, "coroner_") && i > 0 {
			out[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return out
}

func body(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if rec.Code != 200 {
		t.Fatalf("scrape: status %d: %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

func kills(container, cause string) string {
	return fmt.Sprintf(`coroner_oom_kills_total{cause=%q,container=%q,namespace="prod",pod="shop"}`, cause, container)
}

func TestTake_CountsEachKillOnce(t *testing.T) {
	victim, group := process(1, death.FateVictim), process(2, death.FateGroup)
	sharer, zapped := process(3, death.FateSharer), process(4, death.FateCollateral)
	first := kill("d1", death.OOMContainerLimit, victim)
	tests := []struct {
		name string
		take [][]death.Death // a scrape between each
		want map[string]string
	}{
		{"the same revision twice", [][]death.Death{{first}, {first}},
			map[string]string{kills("web", "oom_container_limit"): "1"}},
		{"an amendment without news", [][]death.Death{{first, amended(first, func(*death.Death) {})}},
			map[string]string{kills("web", "oom_container_limit"): "1"}},
		{"an amendment adds a group's process", [][]death.Death{{first}, {amended(first, func(d *death.Death) {
			d.Processes = []death.Process{victim, group}
		})}}, map[string]string{kills("web", "oom_container_limit"): "2"}},
		{"only the OOM killer's are counted", [][]death.Death{{kill("d1", death.OOMContainerLimit, victim, sharer, zapped)}},
			map[string]string{kills("web", "oom_container_limit"): "1"}},
		{"a changed cause moves what no scrape has shown", [][]death.Death{{first, amended(first, func(d *death.Death) {
			d.Cause = death.OOMPodLimit
		})}}, map[string]string{kills("web", "oom_pod_limit"): "1", kills("web", "oom_container_limit"): ""}},
		{"a changed cause leaves what was shown", [][]death.Death{{first}, {amended(first, func(d *death.Death) {
			d.Cause = death.OOMPodLimit
			d.Processes = []death.Process{victim, group}
		})}}, map[string]string{kills("web", "oom_container_limit"): "1", kills("web", "oom_pod_limit"): "1"}},
		{"a late name moves with it", [][]death.Death{{amended(first, func(d *death.Death) {
			c := *d.Container
			c.Name = ""
			d.Container = &c
		}), first}}, map[string]string{kills("web", "oom_container_limit"): "1", kills("abababababab", "oom_container_limit"): ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := metrics.New(metrics.Options{})
			for i, deaths := range tt.take {
				if i > 0 {
					scrape(t, m)
				}
				take(m, deaths...)
			}
			got := scrape(t, m)
			for series, want := range tt.want {
				if got[series] != want {
					t.Errorf("%s = %q, want %q", series, got[series], want)
				}
			}
		})
	}
}

func TestTake_CountsEachEndOnce(t *testing.T) {
	m := metrics.New(metrics.Options{})
	d := kill("d1", death.OOMContainerLimit, process(1, death.FateVictim))
	ended := amended(d, func(d *death.Death) { d.Subject = death.SubjectContainer })
	take(m, d, ended, ended)
	scrape(t, m)
	take(m, ended)
	got := scrape(t, m)
	series := `coroner_container_terminations_total{cause="oom_container_limit",container="web",namespace="prod",pod="shop"}`
	if got[series] != "1" {
		t.Errorf("%s = %q, want 1", series, got[series])
	}
}

// TestTake_EndsBeginAtZero: of a container that survived a kill, the first end
// by the same cause must be seen to rise. A cause that nobody died of has none.
func TestTake_EndsBeginAtZero(t *testing.T) {
	m := metrics.New(metrics.Options{})
	ends := func(cause string) string {
		return scrape(t, m)[`coroner_container_terminations_total{cause="`+cause+`",container="web",namespace="prod",pod="shop"}`]
	}
	for i, want := range []string{"0", "1", "2"} {
		d := kill(fmt.Sprintf("d%d", i), death.OOMContainerLimit, process(i+1, death.FateVictim))
		if i > 0 {
			d.Subject = death.SubjectContainer
		}
		take(m, d)
		if got := ends("oom_container_limit"); got != want {
			t.Errorf("after death %d: %q ends, want %s", i, got, want)
		}
	}
	if got := ends("oom_pod_limit"); got != "" {
		t.Errorf("%q ends by what nobody died of", got)
	}
}

func TestMove_GivesBackTheTimeOfTheLastDeath(t *testing.T) {
	m := metrics.New(metrics.Options{})
	old := kill("old", death.OOMContainerLimit, process(1, death.FateVictim))
	young := kill("young", death.OOMContainerLimit, process(2, death.FateVictim))
	young.Time = start.Add(time.Minute)
	take(m, old, young, amended(young, func(d *death.Death) { d.Cause = death.OOMPodLimit }))
	want := map[death.Cause]time.Time{death.OOMContainerLimit: old.Time, death.OOMPodLimit: young.Time, "container_ooms": young.Time}
	got := map[death.Cause]time.Time{}
	for _, c := range m.Prepare(metrics.Change{}, true).Counts {
		got[c.Cause] = c.Last
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("last deaths (-want +got):\n%s", diff)
	}
}

func TestLabels_ForeignText(t *testing.T) {
	long := strings.Repeat("é", 200) // 400 bytes
	tests := []struct {
		name string
		d    death.Death
		want string
	}{
		{"no names", death.Death{Container: &death.Container{ID: "0123456789abcdef", Pod: &death.Pod{UID: "u-1"}}},
			`{cause="oom_node",container="0123456789ab",namespace="",pod="u-1"}`},
		{"a unit", death.Death{Unit: "ssh.service"}, `{cause="oom_node",container="ssh.service",namespace="",pod=""}`},
		{"a pod's name without a container's", death.Death{Unit: "kubelet.service", Container: &death.Container{Pod: &death.Pod{Name: "p"}}},
			`{cause="oom_node",container="kubelet.service",namespace="",pod="p"}`},
		{"nothing", death.Death{}, `{cause="oom_node",container="",namespace="",pod=""}`},
		{"not UTF-8", death.Death{Unit: "a\xff\xfeb\xc3"}, "{cause=\"oom_node\",container=\"a\uFFFDb\uFFFD\",namespace=\"\",pod=\"\"}"},
		{"quotes and line ends", death.Death{Unit: "x\"} 1\ny\\"}, `{cause="oom_node",container="x\"} 1\ny\\",namespace="",pod=""}`},
		{"long", death.Death{Unit: long}, `{cause="oom_node",container="` + long[:256] + `",namespace="",pod=""}`},
		{"long, cut inside a character", death.Death{Unit: "x" + long}, `{cause="oom_node",container="x` + long[:254] + `",namespace="",pod=""}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := metrics.New(metrics.Options{})
			tt.d.ID, tt.d.Cause, tt.d.Processes = "d", death.OOMNode, []death.Process{process(1, death.FateVictim)}
			take(m, tt.d)
			got := scrape(t, m)
			if series := "coroner_oom_kills_total" + tt.want; got[series] != "1" {
				t.Errorf("no %s in %q", series, got)
			}
		})
	}
}

func TestSeries_AreBounded(t *testing.T) {
	c := &clock{start}
	m := metrics.New(metrics.Options{MaxSeries: 3, Now: c.Now})
	unit := func(n int) death.Death {
		return death.Death{
			ID: fmt.Sprint(n), Unit: fmt.Sprintf("u%d.service", n), Time: c.now, Cause: death.OOMNode,
			Processes: []death.Process{process(n, death.FateVictim)},
		}
	}
	series := func(container string) string {
		return fmt.Sprintf(`coroner_oom_kills_total{cause="oom_node",container=%q,namespace="",pod=""}`, container)
	}
	for n := range 5 {
		take(m, unit(n))
	}
	got := scrape(t, m)
	want := map[string]string{series("u0.service"): "1", series("u2.service"): "1", series("u3.service"): "", series("_other"): "2"}
	for s, v := range want {
		if got[s] != v {
			t.Errorf("%s = %q, want %q", s, got[s], v)
		}
	}
	if got["coroner_folded_deaths_total"] != "2" {
		t.Errorf("folded = %q, want 2", got["coroner_folded_deaths_total"])
	}

	// What was shown and is old makes room; what nobody saw does not.
	c.now = c.now.Add(time.Hour)
	take(m, unit(7))
	if got := scrape(t, m); got[series("u7.service")] != "1" || got[series("u0.service")] != "" {
		t.Errorf("after an hour: u7 = %q, want 1; u0 = %q, want none", got[series("u7.service")], got[series("u0.service")])
	}
}

func TestContainers_LivingOnesAreAtZero(t *testing.T) {
	c := &clock{start}
	living := []metrics.Container{{Container: death.Container{Name: "web", Pod: &death.Pod{Namespace: "prod", Name: "shop"}}}}
	m := metrics.New(metrics.Options{Now: c.Now, Containers: func() []metrics.Container { return slices.Clone(living) }})
	for _, i := range death.Causes() {
		want := ""
		if i.OOM {
			want = "0"
		}
		if got := scrape(t, m)[kills("web", string(i.Cause))]; got != want {
			t.Errorf("before a kill: %s = %q, want %q", i.Cause, got, want)
		}
	}

	take(m, kill("d1", death.OOMContainerLimit, process(1, death.FateVictim)))
	c.now = c.now.Add(48 * time.Hour)
	if got := scrape(t, m)[kills("web", "oom_container_limit")]; got != "1" {
		t.Errorf("while it lives = %q, want 1", got)
	}

	living = nil
	c.now = c.now.Add(23 * time.Hour)
	if got := scrape(t, m)[kills("web", "oom_container_limit")]; got != "1" {
		t.Errorf("shortly after it is gone = %q, want 1", got)
	}
	c.now = c.now.Add(2 * time.Hour)
	if got, ok := scrape(t, m)[kills("web", "oom_container_limit")]; ok {
		t.Errorf("a day after it is gone = %q, want none", got)
	}
}

// TestContainers_LivingOnesCountOn: what dies once in two days of no OOM kill, and is
// there again each time, has counters that rise: they do not begin anew.
func TestContainers_LivingOnesCountOn(t *testing.T) {
	c := &clock{start}
	web := death.Container{ID: strings.Repeat("ab", 32), Name: "web", Pod: &death.Pod{Namespace: "prod", Name: "shop"}}
	living := []metrics.Container{{Container: web}}
	m := metrics.New(metrics.Options{Now: c.Now, Containers: func() []metrics.Container { return slices.Clone(living) }})
	const labels = `{cause="error",container="web",namespace="prod",pod="shop"}`
	for n := range 3 {
		take(m, death.Death{ID: fmt.Sprint(n), Revision: 1, Time: c.now, Subject: death.SubjectContainer, Cause: death.Error, Container: &web})
		for hour := range 48 {
			c.now = c.now.Add(time.Hour)
			got := scrape(t, m)
			if ends := got["coroner_container_terminations_total"+labels]; ends != fmt.Sprint(n+1) || got["coroner_last_death_timestamp_seconds"+labels] == "" {
				t.Fatalf("%d hours after its end number %d: %q ends, the last at %q", hour+1, n+1, ends, got["coroner_last_death_timestamp_seconds"+labels])
			}
		}
	}
	living = nil
	c.now = c.now.Add(25 * time.Hour)
	if got, ok := scrape(t, m)["coroner_container_terminations_total"+labels]; ok {
		t.Errorf("a day after it is gone = %q, want none", got)
	}
}

func TestRegistry_HasWhatTheTableSays(t *testing.T) {
	m := full()
	want := make(map[string]string)
	for _, r := range metrics.Table() {
		want[r.Name] = strings.ToUpper(r.Type) + fmt.Sprint(len(r.Labels)) + r.Help
	}
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, f := range families {
		if ours(f.GetName()) {
			got[f.GetName()] = f.GetType().String() + fmt.Sprint(labels(f)) + f.GetHelp()
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-table +registry):\n%s", diff)
	}
}

// ours tells whether a metric is in the table.
func ours(name string) bool {
	return slices.ContainsFunc(metrics.Table(), func(r metrics.Metric) bool {
		return name == r.Name || r.Type == "histogram" && strings.HasPrefix(name, r.Name)
	})
}

func labels(f *dto.MetricFamily) int { return len(f.GetMetric()[0].GetLabel()) }

func TestScrape_IsLintClean(t *testing.T) {
	problems, err := testutil.GatherAndLint(full().Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "coroner_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// TestGatherer_IsConsistent: client_golang finds nothing wrong with what does
// not come out of a registry: no series twice, no label twice, all UTF-8.
func TestGatherer_IsConsistent(t *testing.T) {
	m := full()
	for range 2 { // the second finds the first one's order
		got, err := prometheus.Gatherers{m.Gatherer()}.Gather()
		if err != nil {
			t.Error(err)
		}
		if own, err := m.Gatherer().Gather(); err != nil || len(own) != len(got) {
			t.Errorf("%d families and %v, want %d", len(own), err, len(got))
		}
	}
}

// TestHandler_ScraperGone: whoever asks and goes away does not fill the log.
func TestHandler_ScraperGone(t *testing.T) {
	var log strings.Builder
	m := metrics.New(metrics.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	m.Handler().ServeHTTP(gone{httptest.NewRecorder()}, httptest.NewRequest("GET", "/metrics", nil))
	if log.Len() > 0 {
		t.Errorf("logged %s", log.String())
	}
}

// gone is a connection that is no more.
type gone struct{ http.ResponseWriter }

func (gone) Write([]byte) (int, error) {
	return 0, &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}
}

func TestScrape_Golden(t *testing.T) {
	var b strings.Builder
	for line := range strings.Lines(body(t, full())) {
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), " ")
		if name, _, _ = strings.Cut(name, "{"); ours(name) {
			b.WriteString(strings.ReplaceAll(line, runtime.Version(), "go1.x"))
		}
	}
	golden(t, filepath.Join("testdata", "scrape.golden"), b.String())
}

func TestDocs_AreTheTable(t *testing.T) {
	golden(t, filepath.Join("..", "..", "..", "docs", "metrics.md"), metrics.Docs())
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; make generate rewrites it):\n%s", path, diff)
	}
}

// full has something to show for each metric.
func full() *metrics.Metrics {
	n, none := uint64(7), uint64(0)
	m := metrics.New(metrics.Options{
		Version: "1.2.3", Revision: "abcdef0",
		Now:    func() time.Time { return start },
		Node:   func() metrics.NodeStat { return metrics.NodeStat{OOMKills: &n, Unattributed: &none} },
		Roster: func() metrics.RosterStat { return metrics.RosterStat{NoRoom: 4, Disbelieved: 2} },
		Sources: func() []metrics.SourceStat {
			return []metrics.SourceStat{
				{Source: death.SourceKmsg, Up: true, Events: 12, Lost: 3},
				{Source: death.SourceTracepoint, Errors: 1},
			}
		},
		Sinks: func() []metrics.SinkStat {
			return []metrics.SinkStat{{Sink: "history", QueueLength: 2, Dropped: 1, Errors: 4}}
		},
		Memory: func() []metrics.Memory {
			n, seconds := int64(64<<20), 90.0
			return []metrics.Memory{{Container: death.Container{ID: "77", Name: "db"}, WorkingSetBytes: n / 2, UsageBytes: n, LimitBytes: &n, PeakBytes: &n, LimitETASeconds: &seconds, Escaped: new(int)}}
		},
		NodeMemory: func() map[string]int64 { return map[string]int64{"capacity": 64 << 30, "unaccounted": 3 << 30} },
		Containers: func() []metrics.Container {
			return []metrics.Container{
				{Container: death.Container{ID: strings.Repeat("0123456789abcdef", 4), Pod: &death.Pod{UID: "5e3f"}}},
				{Container: death.Container{ID: "77", Runtime: "docker", Name: "db\xff", Image: "shop/db:1"}, Restarts: 3, ExitCode: 137, Removed: true},
			}
		},
	})
	ended := kill("d2", death.OOMPodLimit, process(2, death.FateVictim), process(3, death.FateGroup), process(4, death.FateSharer))
	ended.Subject = death.SubjectContainer
	take(m,
		kill("d1", death.OOMContainerLimit, process(1, death.FateVictim)),
		ended,
		death.Death{ID: "d3", Time: start, Unit: "cron.service", Subject: death.SubjectProcess, Cause: death.OOMNode,
			Processes: []death.Process{process(5, death.FateVictim)}},
		death.Death{ID: "d4", Time: start, Subject: death.SubjectContainer, Cause: death.Killed,
			Container: &death.Container{Name: "db\xff", ID: "77"}, Processes: []death.Process{process(6, death.FateSignalled)}},
	)
	for _, s := range []float64{0.0004, 0.004, 3} {
		m.Detected(death.SourceTracepoint, s)
	}
	return m
}

// many are containers like those of a node in a cluster.
func many(n int) []metrics.Container {
	out := make([]metrics.Container, n)
	for i := range out {
		out[i].Container = death.Container{
			ID: fmt.Sprintf("%064x", i), Runtime: "containerd", Name: "app", Image: "registry.example.com/shop/app:1.25.3",
			Pod: &death.Pod{Namespace: "prod", Name: fmt.Sprintf("pod-%d", i), UID: fmt.Sprintf("u-%d", i)},
		}
	}
	return out
}

// holding is what the containers hold.
func holding(living []metrics.Container) []metrics.Memory {
	out, limit := make([]metrics.Memory, len(living)), int64(64<<20)
	for i := range out {
		out[i] = metrics.Memory{Container: living[i].Container, WorkingSetBytes: int64(4<<20 + i), UsageBytes: int64(5<<20 + i), LimitBytes: &limit, PeakBytes: &limit}
	}
	return out
}

func BenchmarkScrape(b *testing.B) {
	for _, n := range []int{200, 1000} {
		for _, accept := range []string{"text/plain", "application/openmetrics-text;version=1.0.0"} {
			b.Run(fmt.Sprintf("%d/%s", n, accept[:strings.Index(accept, "/")+2]), func(b *testing.B) {
				living := many(n)
				m := metrics.New(metrics.Options{
					Containers: func() []metrics.Container { return slices.Clone(living) }, Memory: func() []metrics.Memory { return holding(living) },
				})
				b.ReportAllocs()
				for b.Loop() {
					rec, req := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
					req.Header.Set("Accept", accept)
					m.Handler().ServeHTTP(rec, req)
				}
			})
		}
	}
}

// BenchmarkScrape_Held is what a thousand containers hold between two scrapes.
func BenchmarkScrape_Held(b *testing.B) {
	living := many(1000)
	var before, after runtime.MemStats
	for b.Loop() {
		m := metrics.New(metrics.Options{Containers: func() []metrics.Container { return slices.Clone(living) }})
		runtime.GC()
		runtime.ReadMemStats(&before)
		m.Handler().ServeHTTP(gone{httptest.NewRecorder()}, httptest.NewRequest("GET", "/metrics", nil))
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(m)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<10), "KiB-held")
}

func BenchmarkTake(b *testing.B) {
	m := metrics.New(metrics.Options{})
	d := kill("", death.OOMContainerLimit, process(1, death.FateVictim))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		d.ID = fmt.Sprint(n)
		m.Take(&d)
	}
}
