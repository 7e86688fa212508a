// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
)

// heard is a sink that keeps who was told.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) take(deaths []death.Death) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range deaths {
		h.all = append(h.all, fmt.Sprint(d.ID, " r", d.Revision))
	}
}

func (h *heard) so(t *testing.T, when string, want ...string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if diff := cmp.Diff(want, h.all); diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
	h.all = nil
}

// TestKeeper_TellsSinks: they are told what is kept; where the history is
// overdue they are told without it, as metrics are, each revision once.
func TestKeeper_TellsSinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeArchive()
		k := keep(f, map[string]string{})
		var h heard
		k.tell = h.take
		k.take(killed(1))
		synctest.Wait()
		h.so(t, "kept", "d000001 r1")

		hang := make(chan struct{})
		f.set(func() { f.hang = hang })
		k.take(killed(2))
		time.Sleep(keeperPatience / 2)
		h.so(t, "not kept yet")
		time.Sleep(5 * keeperPatience)
		h.so(t, "overdue", "d000002 r1")
		more := killed(2)
		more.Revision = 2
		k.take(more)
		time.Sleep(5 * keeperPatience)
		h.so(t, "amended while overdue", "d000002 r2")
		f.set(func() { f.hang = nil })
		close(hang)
		synctest.Wait()
		h.so(t, "kept at last", "d000002 r1", "d000002 r2") // which a sink knows
		k.stop()
	})
}

// missingSeries are those that a scrape lacks of a sink that has done its work.
func missingSeries(t *testing.T, url string) (out []string) {
	t.Helper()
	_, scrape := fetched(t, url+"/metrics")
	for _, want := range []string{"up{sink=%q} 1", "queue_length{sink=%q} 0", "dropped_total{sink=%q} 0", "errors_total{sink=%q} 0"} {
		if want = fmt.Sprintf("coroner_sink_"+want, "kubeevents"); !strings.Contains(scrape, want) {
			out = append(out, want)
		}
	}
	return out
}

// TestAgent_KubeEvents: a death that is kept becomes an event, by the kubeconfig
// that source kube has; what an earlier run told is not told again.
func TestAgent_KubeEvents(t *testing.T) {
	posted := make(chan string, 16)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		posted <- r.Method + " " + r.URL.Path + " " + string(body)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Event", "apiVersion": "v1"})
	}))
	defer srv.Close()
	config := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "c", "cluster": {"server": "` + srv.URL + `"}}],
 "contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := idle(t)
	o.Source.Kubeconfig = config
	dead := func(n int) death.Death {
		d := killed(n)
		d.Summary = fmt.Sprintf("Sentence %d.", n)
		d.Container.Pod = &death.Pod{Namespace: "shop", Name: "web-1", UID: "6b3f0c1e-0000-4000-8000-000000000001"}
		return d
	}
	run := func(t *testing.T, deaths ...death.Death) {
		a, url := running(t, o)
		a.keeper.give(progress{deaths: deaths})
		select {
		case got := <-posted:
			if want := deaths[len(deaths)-1].Summary; !strings.HasPrefix(got, "POST /api/v1/namespaces/shop/events ") || !strings.Contains(got, want) {
				t.Errorf("got %q, want an event with %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Error("no event")
		}
		for deadline := time.Now().Add(time.Minute); ; {
			missing := missingSeries(t, url)
			if len(missing) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("no %q", missing)
			}
		}
	}
	t.Run("first", func(t *testing.T) { run(t, dead(1)) })
	again := dead(1)
	again.Revision, again.Summary = 2, "Read again."
	t.Run("restarted", func(t *testing.T) { run(t, again, dead(2)) })
	select {
	case got := <-posted:
		t.Errorf("and %q", got)
	default:
	}
	o.Sink.KubeEvents = false
	a, url := running(t, o)
	if _, scrape := fetched(t, url+"/metrics"); a.sinks.events != nil || strings.Contains(scrape, `sink="kubeevents"`) {
		t.Error("there are events though they are switched off")
	}
}
