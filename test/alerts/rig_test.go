// SPDX-License-Identifier: Apache-2.0

//go:build linux

package alerts

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/mixin"
	agentrig "github.com/coroner-dev/coroner/test/rig"
)

const (
	// hurry makes ten minutes 30 seconds: what an alert takes on its way, a slow
	// machine's too, must be well below.
	hurry = 20
	// patience is for an alert on its way through scrape, rule and Alertmanager.
	patience = 90 * time.Second
)

// freePort is one that nobody listens on; both programs want to be told.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// daemon runs a program until the test ends, and shows what it complained of if
// the test fails. It is ready when its page is there.
func daemon(t *testing.T, ready, program string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, args...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s complained:\n%s", filepath.Base(program), complaints(string(text)))
		}
		_ = log.Close()
	})
	agentrig.Poll(t, func() error {
		_, err := get(t, ready)
		return err
	})
}

// complaints are the lines of a log that are above level info, or have none.
func complaints(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "level=info") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func get(t *testing.T, address string) ([]byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", address, resp.Status, body)
	}
	return body, err
}

// window is what Prometheus scrapes: the agent's metrics as they are, or, while
// it is shut, as they were. So a test decides what lies between two scrapes.
type window struct {
	agent string
	mu    sync.Mutex
	shut  bool
	last  []byte
}

func (w *window) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.shut || w.last == nil {
		body, err := fetch(r, w.agent+"/metrics")
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		w.last = body
	}
	_, _ = rw.Write(w.last)
}

func fetch(r *http.Request, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// late is an agent that answers only once it is told to.
type late struct{ up atomic.Bool }

func (l *late) ServeHTTP(rw http.ResponseWriter, _ *http.Request) {
	if !l.up.Load() {
		http.Error(rw, "not yet", http.StatusServiceUnavailable)
	}
}

func (w *window) set(shut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shut = shut
}

// notice is an alert as Alertmanager tells it.
type notice struct {
	Status      string
	Labels      map[string]string
	Annotations map[string]string
}

// desk takes the notices.
type desk struct {
	mu  sync.Mutex
	got []notice
}

func (d *desk) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var message struct{ Alerts []notice }
	if err := json.NewDecoder(r.Body).Decode(&message); err != nil {
		panic(err) // Alertmanager tells it again
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got = append(d.got, message.Alerts...)
}

// of are the notices with a status and these labels.
func (d *desk) of(status string, labels map[string]string) []notice {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.got), func(n notice) bool {
		for name, value := range labels {
			if n.Labels[name] != value {
				return true
			}
		}
		return n.Status != status
	})
}

func (d *desk) sketch() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	for _, n := range d.got {
		fmt.Fprintf(&b, "- %s %v: %s\n", n.Status, n.Labels, n.Annotations["description"])
	}
	return b.String()
}

// watch is a Prometheus with the rules, in a hurry, and an Alertmanager.
type watch struct {
	t      *testing.T
	window *window
	desk   *desk
	prom   string // its URL
	target string // the label "instance"
	// A target of a PodMonitor in the namespace "other".
	late   *late
	lateAt string
}

// start watches an agent at a URL.
func start(t *testing.T, agent string) *watch {
	t.Helper()
	prometheus := need(t, "prometheus", "prometheus")
	alertmanager := need(t, "prometheus-alertmanager", "prometheus-alertmanager")
	w := &watch{t: t, window: &window{agent: agent}, desk: &desk{}, late: &late{}}
	scraped := httptest.NewServer(w.window)
	t.Cleanup(scraped.Close)
	told := httptest.NewServer(w.desk)
	t.Cleanup(told.Close)
	lost := httptest.NewServer(w.late)
	t.Cleanup(lost.Close)
	w.lateAt = strings.TrimPrefix(lost.URL, "http://")
	w.target = strings.TrimPrefix(scraped.URL, "http://")
	promAt, managerAt, dir := freePort(t), freePort(t), t.TempDir()
	w.prom = "http://" + promAt

	rules, err := mixin.Rules(mixin.Options{Hurry: hurry})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"rules.yml": string(rules),
		"manager.yml": fmt.Sprintf(`route: {receiver: desk, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}
receivers: [{name: desk, webhook_configs: [{url: '%s', send_resolved: true}]}]
`, told.URL),
		// A scrape that times out would look like a container that is gone, and then
		// its alert comes twice: it has as long as a busy machine may stand still.
		"prometheus.yml": fmt.Sprintf(`global: {scrape_interval: 5s, scrape_timeout: 5s, evaluation_interval: 1s}
rule_files: [rules.yml]
alerting: {alertmanagers: [{static_configs: [{targets: ['%s']}]}]}
scrape_configs:
- {job_name: coroner, honor_labels: true, static_configs: [{targets: ['%s']}]}
- {job_name: other/coroner, static_configs: [{targets: ['%s']}]}
`, managerAt, w.target, w.lateAt),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	daemon(t, "http://"+managerAt+"/-/ready", alertmanager, "--config.file="+dir+"/manager.yml", "--storage.path="+dir+"/am",
		"--web.listen-address="+managerAt, "--cluster.listen-address=")
	daemon(t, w.prom+"/-/ready", prometheus, "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/tsdb",
		"--web.listen-address="+promAt)
	return w
}

// ask gives the values of an expression, now.
func (w *watch) ask(expr string) ([]string, error) {
	body, err := get(w.t, w.prom+"/api/v1/query?query="+url.QueryEscape(expr))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	var out []string
	for _, r := range answer.Data.Result {
		out = append(out, fmt.Sprint(r.Value[1]))
	}
	return out, nil
}

// until waits for n notices with a status and labels.
func (w *watch) until(n int, status, alert string, labels map[string]string) []notice {
	w.t.Helper()
	all := map[string]string{"alertname": alert, "job": "coroner", "instance": w.target}
	maps.Copy(all, labels)
	deadline := time.Now().Add(patience)
	for {
		got := w.desk.of(status, all)
		if len(got) == n {
			return got
		}
		if len(got) > n || time.Now().After(deadline) {
			w.t.Fatalf("%d notices that are %s, want %d: %v\n%s", len(got), status, n, all, w.desk.sketch())
		}
		select {
		case <-w.t.Context().Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}
