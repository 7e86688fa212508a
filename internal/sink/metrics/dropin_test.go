// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

var (
	webID = strings.Repeat("ab", 32)
	shop  = &death.Pod{Namespace: "prod", Name: "shop", UID: "5e3f"}
)

// showing are metrics over containers that the test may change.
func showing(c *clock, known *[]metrics.Container) *metrics.Metrics {
	return metrics.New(metrics.Options{Now: c.Now, Containers: func() []metrics.Container { return slices.Clone(*known) }})
}

// dropIn gives what is shown of one of the three metrics: values by container_id.
func dropIn(t *testing.T, m *metrics.Metrics, name string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(body(t, m)) {
		if rest, ok := strings.CutPrefix(line, name+`{container_id="`); ok {
			id, _, _ := strings.Cut(rest, `"`)
			out[id] = line[strings.LastIndexByte(line, ' ')+1 : len(line)-1]
		}
	}
	return out
}

// TestDropIn_Labels: each label has the form in which missing-container-metrics
// gives it.
func TestDropIn_Labels(t *testing.T) {
	long := strings.Repeat("x", 64<<10)
	for _, tc := range []struct {
		name string
		c    death.Container
		want string
	}{
		{"Docker", death.Container{ID: webID, Runtime: "docker", Name: "web-1", Image: "shop/web:3", ImageID: "sha256:11"},
			`container_id="docker://` + webID + `",container_short_id="abababababab",docker_container_id="` + webID +
				`",image_id="docker-pullable://shop/web:3",name="web-1",namespace="",pod=""`},
		{"Docker, an image without a name", death.Container{ID: webID, Runtime: "docker", Name: "web-1", ImageID: "sha256:11"},
			`container_id="docker://` + webID + `",container_short_id="abababababab",docker_container_id="` + webID +
				`",image_id="docker://sha256:11",name="web-1",namespace="",pod=""`},
		{"containerd, in a pod", death.Container{ID: webID, Runtime: "containerd", Name: "app", Image: "docker.io/shop/web:3", Pod: shop},
			`container_id="containerd://` + webID + `",container_short_id="abababababab",docker_container_id="not-a-docker-container"` +
				`,image_id="docker.io/shop/web:3",name="app",namespace="prod",pod="shop"`},
		{"CRI-O", death.Container{ID: webID, Runtime: "cri-o", Name: "app", ImageID: "sha256:11", Pod: shop},
			`container_id="cri-o://` + webID + `",container_short_id="abababababab",docker_container_id="not-a-docker-container"` +
				`,image_id="sha256:11",name="app",namespace="prod",pod="shop"`},
		{"a cgroup alone", death.Container{ID: webID, Pod: &death.Pod{UID: "5e3f"}},
			`container_id="` + webID + `",container_short_id="abababababab",docker_container_id="",image_id="",name="",namespace="",pod=""`},
		{"a short id", death.Container{ID: "a", Runtime: "docker"},
			`container_id="docker://a",container_short_id="a",docker_container_id="a",image_id="",name="",namespace="",pod=""`},
		{"hostile", death.Container{ID: "a\"\n\xff", Runtime: "po\nd", Name: long, Image: "a\\\"\n} 1\n", Pod: &death.Pod{Namespace: "\xc3", Name: "\"} 7\n"}},
			`container_id="po\nd://a\"\n` + "\uFFFD" + `",container_short_id="a\"\n` + "\uFFFD" + `",docker_container_id="not-a-docker-container",image_id="a\\\"\n} 1\n",name="` +
				long[:256] + `",namespace="` + "\uFFFD" + `",pod="\"} 7\n"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			known := []metrics.Container{{Container: tc.c, Restarts: 2, ExitCode: 137}}
			text := body(t, showing(&clock{start}, &known))
			for _, want := range []string{"container_restarts{" + tc.want + "} 2", "container_ooms{" + tc.want + "} 0", "container_last_exit_code{" + tc.want + "} 137"} {
				if !strings.Contains(text, "\n"+want+"\n") {
					t.Errorf("no %s", want)
				}
			}
			parser := expfmt.NewTextParser(model.UTF8Validation)
			if _, err := parser.TextToMetricFamilies(strings.NewReader(text)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDropIn_Names: the names stay in each format that Prometheus asks for.
func TestDropIn_Names(t *testing.T) {
	known := []metrics.Container{{Container: death.Container{ID: webID, Runtime: "docker"}}}
	m := showing(&clock{start}, &known)
	for _, accept := range []string{"text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0", "application/openmetrics-text;version=0.0.1"} {
		rec, req := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
		req.Header.Set("Accept", accept)
		m.Handler().ServeHTTP(rec, req)
		for _, name := range []string{"container_restarts", "container_ooms", "container_last_exit_code"} {
			if !strings.Contains(rec.Body.String(), "\n"+name+"{container_id=") {
				t.Errorf("%s: no %s", accept, name)
			}
		}
	}
}

// TestDropIn_OOMs: the processes that the OOM killer took, by container id:
// once each, as soon as they are kept.
func TestDropIn_OOMs(t *testing.T) {
	c := &clock{start}
	other := strings.Repeat("cd", 32)
	known := []metrics.Container{
		{Container: death.Container{ID: webID, Runtime: "containerd", Name: "web", Pod: shop}},
		{Container: death.Container{ID: other, Runtime: "docker"}},
	}
	m := showing(c, &known)
	want := func(what, web, docker string) {
		t.Helper()
		if got := dropIn(t, m, "container_ooms"); got["containerd://"+webID] != web || got["docker://"+other] != docker {
			t.Errorf("%s: %v, want %s and %s", what, got, web, docker)
		}
	}
	want("before a kill", "0", "0")
	take(m, kill("d1", death.OOMContainerLimit, process(1, death.FateVictim), process(2, death.FateGroup), process(3, death.FateSharer), process(4, death.FateCollateral)))
	want("a group", "2", "0")
	take(m, amended(kill("d1", death.OOMPodLimit, process(1, death.FateVictim), process(2, death.FateGroup)), func(d *death.Death) { d.Subject = death.SubjectContainer }))
	want("an amendment", "2", "0")
	take(m, kill("d2", death.Killed, process(5, death.FateSignalled)))
	want("a signal", "2", "0")
	take(m, kill("d3", death.OOMNode, process(6, death.FateVictim)))
	want("another cause", "3", "0")

	// One that waits for the history is not shown; one that is let out is.
	waiting := kill("d4", death.OOMNode, process(7, death.FateVictim))
	waiting.Container = &death.Container{ID: other}
	change := m.Take(&waiting)
	want("not kept yet", "3", "0")
	m.Release()
	want("let out", "3", "1")
	m.Kept(m.Prepare(change, false))
	want("kept", "3", "1")

	// Another agent goes on from there, and counts no death again.
	counts := m.Prepare(metrics.Change{}, true).Counts
	m = showing(c, &known)
	m.Seed(counts, 0)
	m.Remember([]death.Death{waiting})
	want("another agent", "3", "1")
	take(m, amended(waiting, func(d *death.Death) { d.Processes = append(d.Processes, process(8, death.FateVictim)) }))
	want("an amendment after a restart", "3", "2")
	if got := body(t, m); strings.Contains(got, `cause="container_ooms"`) {
		t.Error("what is kept for container_ooms is shown elsewhere")
	}

	// A removed one is shown as long as it is listed, and then forgotten.
	known[0].Removed = true
	want("removed", "3", "2")
	if _, zero := scrape(t, m)[kills("web", "oom_cpuset")]; zero {
		t.Error("a removed container has its other metrics at 0")
	}
	known = known[1:]
	c.now = c.now.Add(25 * time.Hour)
	want("gone", "", "2")
	c.now = c.now.Add(time.Hour)
	for _, k := range m.Prepare(metrics.Change{}, true).Counts {
		if k.Container == webID {
			t.Errorf("kept: %+v", k)
		}
	}
}

func killsOf(namespace, pod, container string) string {
	return fmt.Sprintf(`coroner_oom_kills_total{cause="oom_container_limit",container=%q,namespace=%q,pod=%q}`, container, namespace, pod)
}

// TestDropIn_NameThatComesLater: a container that was seen before it had a
// name is one series at any time, and no count of it is lost or told twice.
func TestDropIn_NameThatComesLater(t *testing.T) {
	known := []metrics.Container{{Container: death.Container{ID: webID}}}
	m := showing(&clock{start}, &known)
	unnamed := func(id string, pid int) death.Death {
		d := kill(id, death.OOMContainerLimit, process(pid, death.FateVictim))
		d.Container = &death.Container{ID: webID}
		return d
	}
	total := func(metric string) (sum, series int) {
		t.Helper()
		for name, v := range scrape(t, m) {
			if strings.HasPrefix(name, metric+"{") {
				n, err := strconv.Atoi(v)
				if err != nil {
					t.Fatal(err)
				}
				sum, series = sum+n, series+1
			}
		}
		return sum, series
	}
	shown, fresh := unnamed("d1", 1), unnamed("d2", 2)
	take(m, shown)
	if got := scrape(t, m)[killsOf("", "", "abababababab")]; got != "1" {
		t.Fatalf("by its id = %q, want 1", got)
	}
	take(m, fresh)
	name := func(d *death.Death) {
		d.Container = &death.Container{ID: webID, Runtime: "containerd", Name: "web", Pod: shop}
	}
	known[0].Container = death.Container{ID: webID, Runtime: "containerd", Name: "web", Pod: shop}
	take(m, amended(shown, name), amended(fresh, name), kill("d3", death.OOMContainerLimit, process(3, death.FateVictim)))
	got := scrape(t, m)
	if id, named := got[killsOf("", "", "abababababab")], got[kills("web", "oom_container_limit")]; id != "1" || named != "2" {
		t.Errorf("by its id %s, by its name %s; want the one that was shown, 1, and 2", id, named)
	}
	causes := 0
	for _, i := range death.Causes() {
		if i.OOM {
			causes++
		}
	}
	if sum, series := total("coroner_oom_kills_total"); sum != 3 || series != causes+1 {
		t.Errorf("%d kills in %d series, want 3 in %d", sum, series, causes+1)
	}
	if got := dropIn(t, m, "container_ooms"); !cmp.Equal(got, map[string]string{"containerd://" + webID: "3"}) {
		t.Errorf("container_ooms = %v", got)
	}
}

// TestTerminations_OfEveryCause: ends are counted whatever their cause; a
// series begins with the first, while those of OOM kills begin at 0.
func TestTerminations_OfEveryCause(t *testing.T) {
	known := []metrics.Container{{Container: death.Container{ID: webID, Name: "web", Pod: shop}}}
	m := showing(&clock{start}, &known)
	series := func(metric string, cause death.Cause) string {
		return fmt.Sprintf(`%s{cause=%q,container="web",namespace="prod",pod="shop"}`, metric, cause)
	}
	for i, info := range death.Causes() {
		if _, ok := scrape(t, m)[series("coroner_container_terminations_total", info.Cause)]; ok {
			t.Errorf("%s before an end", info.Cause)
		}
		d := kill(fmt.Sprint(i), info.Cause)
		d.Subject, d.Processes = death.SubjectContainer, nil
		take(m, d, amended(d, func(*death.Death) {}))
		got := scrape(t, m)
		if got[series("coroner_container_terminations_total", info.Cause)] != "1" || got[series("coroner_last_death_timestamp_seconds", info.Cause)] == "" {
			t.Errorf("%s: no end in %q", info.Cause, got)
		}
		if _, zero := got[series("coroner_oom_kills_total", info.Cause)]; zero != info.OOM {
			t.Errorf("%s at 0: %v, want %v", info.Cause, zero, info.OOM)
		}
	}
}

// TestDropIn_IsBounded: of too many containers the living ones are shown, and
// always the same.
func TestDropIn_IsBounded(t *testing.T) {
	known := many(50)
	for i := range 25 {
		known[i].Removed = true
	}
	known = append(known, known[30], metrics.Container{})
	m := metrics.New(metrics.Options{MaxSeries: 10, Containers: func() []metrics.Container { return slices.Clone(known) }})
	want := dropIn(t, m, "container_restarts")
	for id := range want {
		if n, err := strconv.ParseInt(strings.TrimPrefix(id, "containerd://"), 16, 32); err != nil || n < 25 || n >= 35 {
			t.Errorf("%s is shown: %v", id, err)
		}
	}
	slices.Reverse(known)
	if got := dropIn(t, m, "container_restarts"); len(got) < 9 || !cmp.Equal(got, want) {
		t.Errorf("%v, before %v", got, want)
	}
	if _, err := (prometheus.Gatherers{m.Gatherer()}).Gather(); err != nil {
		t.Error(err)
	}
}
