// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/test/engines"
)

const (
	// together is how many containers are started or removed at a time: Docker
	// 20.10 stops answering where it is many.
	together = 10
	// heldBytes is what each container touches and holds.
	heldBytes = "4M"
	program   = "/coroner"
)

// crowd is a Docker with its containerd, both of the benchmark's own, and its
// containers. containerd's CRI plugin is on, so that coroner asks three engines.
type crowd struct {
	t       *testing.T
	dir     string
	http    *http.Client
	running []string
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	engines.Need(t, "docker.io, containerd, runc, busybox-static", "dockerd", "containerd", "runc")
	c := &crowd{t: t, dir: engines.Dir(t)}
	c.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.path("d.sock"))
	}}}
	engines.Must(t, os.WriteFile(c.path("config.toml"), []byte(strings.ReplaceAll(`version = 2
root = "DIR/root"
state = "DIR/state"
[grpc]
  address = "DIR/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/opt"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "DIR/cni"
    conf_dir = "DIR/cni.d"
`, "DIR", c.dir)), 0o600))
	engines.Must(t, os.WriteFile(c.path("none.json"), []byte("{}"), 0o600))
	containerd := &engines.Daemon{
		T: t, Log: c.path("containerd.log"), Command: []string{"containerd", "--config", c.path("config.toml")},
		Answers: func() bool { return dials(c.path("c.sock")) },
	}
	containerd.Start()
	t.Cleanup(containerd.Stop)
	docker := &engines.Daemon{
		T: t, Log: c.path("dockerd.log"), Command: []string{
			"dockerd", "--containerd", c.path("c.sock"), "--data-root", c.path("data"), "--exec-root", c.path("exec"),
			"--pidfile", c.path("pid"), "-H", "unix://" + c.path("d.sock"), "--config-file", c.path("none.json"),
			"--iptables=false", "--ip6tables=false", "--bridge=none",
		},
		Answers: func() bool { return c.call(http.MethodGet, "/_ping", nil, nil) == nil },
	}
	docker.Start()
	t.Cleanup(func() {
		c.remove(c.running...)
		c.http.CloseIdleConnections()
		docker.Stop()
	})
	layer := engines.Layer(t, flags.binary)
	engines.Must(t, c.call(http.MethodPost, "/images/create?fromSrc=-&repo=base&tag=1", layer, nil))
	return c
}

func (c *crowd) path(name string) string { return filepath.Join(c.dir, name) }

// flags name the engines to the agent.
func (c *crowd) flags() []string {
	return []string{"--source.docker.host=unix://" + c.path("d.sock"), "--source.containerd.host=unix://" + c.path("c.sock"),
		"--source.cri.endpoint=unix://" + c.path("c.sock")}
}

func dials(socket string) bool {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// call is one request to Docker; the answer is read into out where that is not nil.
func (c *crowd) call(method, path string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://docker/v1.41"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode >= http.StatusBadRequest:
		return fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, text)
	case out == nil:
		return nil
	}
	return json.Unmarshal(text, out)
}

// run starts a container with a limit of 32 MiB, and gives its id.
func (c *crowd) run(name string, command ...string) (string, error) {
	body, err := json.Marshal(map[string]any{
		"Image": "base:1", "Cmd": command, "HostConfig": map[string]any{"NetworkMode": "none", "Memory": 32 << 20},
	})
	if err != nil {
		return "", err
	}
	var made struct{ ID string }
	if err := c.call(http.MethodPost, "/containers/create?name="+name, body, &made); err != nil {
		return "", err
	}
	return made.ID, c.call(http.MethodPost, "/containers/"+made.ID+"/start", nil, nil)
}

// grow starts containers until n run.
func (c *crowd) grow(n int) {
	c.t.Helper()
	began, from := clock(), len(c.running)
	for len(c.running) < n {
		ids, errs := make([]string, min(together, n-len(c.running))), make([]error, together)
		var wg sync.WaitGroup
		for i := range ids {
			name := fmt.Sprintf("idle-%d", len(c.running)+i)
			wg.Go(func() { ids[i], errs[i] = c.run(name, program, "leak", "--max", heldBytes, "--survive") })
		}
		wg.Wait()
		for i, id := range ids {
			if id != "" {
				c.running = append(c.running, id)
			}
			engines.Must(c.t, errs[i])
		}
	}
	c.t.Logf("%d containers started in %.0f s", n-from, (clock() - began).Seconds())
}

// remove takes containers away.
func (c *crowd) remove(ids ...string) {
	for len(ids) > 0 {
		part := ids[:min(together, len(ids))]
		ids = ids[len(part):]
		var wg sync.WaitGroup
		for _, id := range part {
			wg.Go(func() {
				if err := c.call(http.MethodDelete, "/containers/"+id+"?force=1", nil, nil); err != nil {
					c.t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// measureEngines is what the whole agent costs beside real engines with few
// and with many containers, and when their deaths are visible.
func measureEngines(t *testing.T, r *Report) {
	oomtest.Require(t, oomtest.RealKills)
	length, kills := 30*time.Second, 30
	if testing.Short() {
		length, kills = 10*time.Second, 6
	}
	k := newKernelClock(t)
	c := newCrowd(t)
	for _, n := range crowds {
		if flags.crowd > 0 && n != flags.crowd {
			continue
		}
		c.grow(n)
		a := start(t, append(c.flags(), "--web.enable-pprof=false")...) // as it is run
		a.knows(n)
		rest(3 * settling)
		id := fmt.Sprint(n)
		a.costs(r, "engines", id, length)
		metrics, stream := c.kill(a, k, kills)
		r.Results["engines.metrics."+id] = Result{spread(metrics), fmt.Sprintf("%d kills", len(metrics))}
		r.Results["engines.stream."+id] = Result{spread(stream), fmt.Sprintf("%d kills", len(stream))}
		a.stop()
		if n == crowds[len(crowds)-1] {
			a = start(t, append(c.flags(), "--no-source.containerd", "--no-source.cri", "--web.enable-pprof=false")...)
			a.knows(n)
			rest(3 * settling)
			a.costs(r, "docker", id, length)
			a.stop()
			a = start(t, c.flags()...)
			a.knows(n)
			rest(3 * settling)
			heap := a.heap(fmt.Sprintf("Heap beside three engines with %d containers", n))
			r.Profiles = append(r.Profiles, a.profile(fmt.Sprintf("CPU beside three engines with %d containers", n), 2*int(length.Seconds()), nil), heap)
			a.stop()
		}
	}
}

// costs are what the agent takes beside id containers, in rows that begin with
// what.
func (a *running) costs(r *Report, what, id string, length time.Duration) {
	a.t.Helper()
	used, woken, began := a.cpu(), a.wakeups(), clock()
	a.scrapedFor(length)
	over := clock() - began
	r.Results[what+".cpu."+id] = Result{Values: []float64{100 * float64(a.cpu()-used) / float64(over)}}
	r.Results[what+".wake."+id] = Result{Values: []float64{(a.wakeups() - woken) / over.Seconds()}}
	r.Results[what+".rss."+id] = Result{Values: []float64{a.memory("VmRSS")}, Remark: "at most " + number(a.memory("VmHWM")) + " MiB"}
	r.Results[what+".anon."+id] = Result{Values: []float64{a.memory("RssAnon")}}
	r.Results[what+".scrape."+id] = Result{Values: a.scrapeTimes()}
	r.Results[what+".after."+id] = Result{Values: []float64{a.memory("VmRSS")}}
}

// kill has containers killed by the kernel, one after the other, each other one
// watched on /metrics.
func (c *crowd) kill(a *running, k *kernelClock, n int) (metrics, stream []float64) {
	c.t.Helper()
	w := &witness{told: map[string]time.Duration{}, record: map[string]time.Duration{}}
	a.watch(w)
	var gone []string
	defer func() { c.remove(gone...) }()
	for i := range n {
		k.forget()
		name := fmt.Sprintf("dies-%d", i)
		id, err := c.run(name, "/bin/sh", "-c", "sleep 1; exec "+program+" leak --block 8M --max 200M")
		if id != "" {
			gone = append(gone, id)
		}
		engines.Must(c.t, err)
		var told time.Duration
		if i%2 == 0 {
			ctx, cancel := context.WithTimeout(c.t.Context(), patience)
			told = a.untilCounted(ctx, name, math.MaxFloat64)
			cancel()
		} else {
			a.poll(func() error {
				if told, _ = w.of(0, "/docker/"+id); told == 0 {
					return fmt.Errorf("the kill in container %s is not told", id)
				}
				return nil
			})
		}
		marked := k.until(told)
		switch {
		case told == 0:
			c.t.Fatalf("the kill in container %s is not counted", id)
		case len(marked) != 1: // somebody else's kill
		case i%2 == 0:
			metrics = append(metrics, float64(told-marked[0])/1e6)
		default:
			stream = append(stream, float64(told-marked[0])/1e6)
		}
	}
	if min(len(metrics), len(stream)) < n/3 {
		c.t.Fatalf("of %d kills %d were timed on /metrics and %d on the stream: somebody else's kills disturb", n, len(metrics), len(stream))
	}
	return metrics, stream
}

// scrapedFor lets a time pass in which a Prometheus comes by each 15 seconds.
func (a *running) scrapedFor(d time.Duration) {
	a.t.Helper()
	for end := clock() + d; clock() < end; {
		rest(min(15*time.Second, end-clock()))
		a.must("/metrics")
	}
}

// wakeups are how often the agent's threads went to sleep until now.
func (a *running) wakeups() float64 {
	a.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", a.cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		a.t.Fatalf("status of %d: %d files, %v", a.cmd.Process.Pid, len(files), err)
	}
	sum := 0.
	for _, f := range files {
		var n float64
		if _, err := fmt.Sscan(field(a.t, f, "voluntary_ctxt_switches"), &n); err != nil {
			a.t.Fatal(err)
		}
		sum += n
	}
	return sum
}
