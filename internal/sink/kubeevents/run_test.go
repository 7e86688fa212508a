// SPDX-License-Identifier: Apache-2.0

package kubeevents

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/coroner-dev/coroner/internal/death"
)

// warnings are the lines of the log that warn.
func (r *rig) warnings() (out []string) {
	for _, l := range r.log.lines() {
		if strings.Contains(l, "level=WARN") {
			out = append(out, l)
		}
	}
	return out
}

// TestRun_Forbidden: the right that is missing is said once, what is not told
// is counted, and once it is granted the next death is told.
func TestRun_Forbidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		r.api.failing(refusing(http.StatusForbidden, metav1.StatusReasonForbidden))
		for i := range 3 {
			r.Take([]death.Death{died(fmt.Sprint("d", i), death.Error)})
			time.Sleep(time.Minute)
		}
		r.expect(t)
		if st := r.Stat(); st != (Stat{Up: false, Dropped: 3, Errors: 3 + 5}) { // the first is tried again
			t.Errorf("stat %+v", st)
		}
		r.api.failing(nil)
		r.Take([]death.Death{died("d3", death.Error)})
		time.Sleep(time.Minute)
		r.api.failing(refusing(http.StatusForbidden, metav1.StatusReasonForbidden))
		r.Take([]death.Death{died("d4", death.Error)})
		time.Sleep(time.Minute)
		r.expect(t, "Warning ContainerDied of Pod: Container main died: d3.")
		if w := r.warnings(); len(w) != 1 || !strings.Contains(w[0], "events: create, patch") || !strings.Contains(w[0], "component=kubeevents") {
			t.Errorf("log:\n%s", strings.Join(r.log.lines(), "\n"))
		}
	})
}

// TestRun_ForbiddenForAMoment: an API server that starts knows nobody's rights
// at first. What it forbids is tried again, also where the agent starts too.
func TestRun_ForbiddenForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		for i := range 2 {
			r.api.failing(refusing(http.StatusForbidden, metav1.StatusReasonForbidden))
			r.Take([]death.Death{died(fmt.Sprint("d", i), death.Error)})
			time.Sleep(10 * time.Second)
			r.api.failing(nil)
			time.Sleep(time.Minute)
		}
		r.expect(t, "Warning ContainerDied of Pod: Container main died: d0.", "Warning ContainerDied of Pod: Container main died: d1.")
		if st := r.Stat(); !st.Up || st.Dropped != 0 {
			t.Errorf("stat %+v", st)
		}
	})
}

// TestRun_Refused: an event that is refused for what it says, or for its
// namespace that goes, keeps no other waiting.
func TestRun_Refused(t *testing.T) {
	for name, tc := range map[string]struct {
		how  func(http.ResponseWriter, *http.Request) bool
		says int
	}{
		"invalid":     {refusing(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid), 1},
		"no such":     {refusing(http.StatusNotFound, metav1.StatusReasonNotFound), 0}, // as namespaces go
		"terminating": {refusing(http.StatusForbidden, metav1.StatusReasonForbidden, metav1.StatusCause{Type: corev1.NamespaceTerminatingCause}), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := telling(t)
				r.api.failing(func(w http.ResponseWriter, q *http.Request) bool {
					return strings.Contains(q.URL.Path, "/gone/") && tc.how(w, q)
				})
				for i := range 3 {
					gone := died(fmt.Sprint("gone", i), death.Error)
					gone.Container.Pod = &death.Pod{Namespace: "gone", Name: "web-1", UID: podUID}
					r.Take([]death.Death{gone})
				}
				r.Take([]death.Death{died("d1", death.Error)})
				time.Sleep(hold + time.Second)
				r.expect(t, "Warning ContainerDied of Pod: Container main died: d1.")
				if st := r.Stat(); st != (Stat{Up: true, Dropped: 3, Errors: 3}) {
					t.Errorf("stat %+v", st)
				}
				last := died("gone9", death.Error)
				last.Container.Pod = &death.Pod{Namespace: "gone", Name: "web-1", UID: podUID}
				r.Take([]death.Death{last})
				time.Sleep(hold + time.Second)
				if st := r.Stat(); st != (Stat{Up: true, Dropped: 4, Errors: 4}) {
					t.Errorf("the last is refused: stat %+v", st)
				}
				if w := r.warnings(); len(w) != tc.says || strings.Contains(strings.Join(w, ""), "grant") {
					t.Errorf("log:\n%s", strings.Join(r.log.lines(), "\n"))
				}
			})
		})
	}
}

// TestRun_Away: while the API fails in each way, nobody is held up; once it is
// back, each death has one event.
func TestRun_Away(t *testing.T) {
	busy := refusing(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests)
	for name, how := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"crowded": func(w http.ResponseWriter, q *http.Request) bool {
			w.Header().Set("Retry-After", "1")
			return busy(w, q)
		},
		"very crowded": func(w http.ResponseWriter, q *http.Request) bool {
			w.Header().Set("Retry-After", "86400")
			return busy(w, q)
		},
		"broken":       refusing(http.StatusInternalServerError, metav1.StatusReasonInternalError),
		"unavailable":  refusing(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable),
		"unauthorized": refusing(http.StatusUnauthorized, metav1.StatusReasonUnauthorized),
		"never":        never,
		"garbage": func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("<html>\x00</html>"))
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := telling(t)
				r.api.failing(how)
				began := time.Now()
				for i := range 3 {
					r.Take([]death.Death{died(fmt.Sprint("d", i), death.Error)})
				}
				if d := time.Since(began); d != 0 {
					t.Errorf("held up for %v", d)
				}
				time.Sleep(5 * time.Minute)
				st := r.Stat()
				if st.Up || st.QueueLength != 3 || st.Dropped != 0 || st.Errors < 5 || st.Errors > 40 {
					t.Errorf("stat %+v", st)
				}
				if len(r.warnings()) != 1 {
					t.Errorf("log:\n%s", strings.Join(r.log.lines(), "\n"))
				}
				r.api.failing(nil)
				time.Sleep(2 * time.Minute)
				r.expect(t, "Warning ContainerDied of Pod: Container main died: d0.", "Warning ContainerDied of Pod: Container main died: d1.", "Warning ContainerDied of Pod: Container main died: d2.")
				if st := r.Stat(); !st.Up || st.QueueLength != 0 || st.Dropped != 0 {
					t.Errorf("stat %+v", st)
				}
			})
		})
	}
}

// TestRun_LostAnswer: an event that was taken, and whose answer did not come
// back, is not told twice.
func TestRun_LostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		lost := 3
		r.api.failing(func(w http.ResponseWriter, q *http.Request) bool {
			if lost--; lost < 0 {
				return false
			}
			r.api.keep(httptest.NewRecorder(), q)
			<-q.Context().Done()
			return true
		})
		r.Take([]death.Death{died("d1", death.Error)})
		time.Sleep(5 * time.Minute)
		r.expect(t, "Warning ContainerDied of Pod: Container main died: d1.")
	})
}

// TestRun_Expired: an event that the API has dropped is made anew when another
// one like it comes.
func TestRun_Expired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		d := died("d1", death.Error)
		r.Take([]death.Death{d})
		time.Sleep(time.Minute)
		r.api.mu.Lock()
		r.api.events = nil
		r.api.mu.Unlock()
		d.ID = "d2" // with the same words
		r.Take([]death.Death{d})
		time.Sleep(time.Minute)
		r.expect(t, "Warning ContainerDied of Pod: Container main died: d1.")
	})
}

// TestRun_Full: what there is no room for is dropped, the oldest first, and
// counted; what is older than an hour is no news.
func TestRun_Full(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		r.api.failing(never)
		r.Take([]death.Death{died("first", death.Error)})
		time.Sleep(hold)
		synctest.Wait() // it is with the API now
		for i := range maxWaiting + 7 {
			d := died(fmt.Sprint("d", i), death.Error)
			d.Container.Pod.Name = fmt.Sprint("web-", i)
			r.Take([]death.Death{d})
		}
		synctest.Wait()
		if st := r.Stat(); st.QueueLength != maxWaiting+1 || st.Dropped != 7 {
			t.Errorf("stat %+v", st)
		}
		time.Sleep(lifetime)
		r.Take([]death.Death{died("news", death.Error)})
		time.Sleep(24 * time.Hour)
		if st := r.Stat(); st.QueueLength != 0 || st.Dropped != maxWaiting+9 {
			t.Errorf("stat %+v", st)
		}
		r.expect(t)
	})
}

// TestRun_Ends: the end of the agent tells what waits, and takes no longer than
// it may where the API does not answer.
func TestRun_Ends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		r.Take([]death.Death{died("d1", death.Error), died("d2", death.OOMNode)})
		r.stop()
		r.expect(t, "Warning ContainerDied of Pod: Container main died: d1.", "Warning OOMKilled of Pod: Container main died: d2.", "Warning NodeOOM of Node: Container main died: d2.")

		r = telling(t)
		r.api.failing(never)
		r.Take([]death.Death{died("d1", death.Error)})
		time.Sleep(2 * hold) // it is with the API now
		r.Take([]death.Death{died("d2", death.Error)})
		began := time.Now()
		r.stop()
		if d := time.Since(began); d > endLimit {
			t.Errorf("it took %v", d)
		}
		if st := r.Stat(); st.QueueLength != 0 || st.Dropped != 2 {
			t.Errorf("stat %+v", st)
		}
	})
}

// TestRun_EndsInBackoff: what was tried in vain is tried once more at the end,
// as the same event.
func TestRun_EndsInBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := telling(t)
		r.api.failing(refusing(http.StatusInternalServerError, metav1.StatusReasonInternalError))
		r.Take([]death.Death{died("d1", death.Error)})
		time.Sleep(2 * hold)
		r.api.failing(nil)
		r.stop()
		r.expect(t, "Warning ContainerDied of Pod: Container main died: d1.")
		if all, _ := r.api.kept(); len(all) == 1 && all[0].Count != 1 {
			t.Errorf("counts %d", all[0].Count)
		}
	})
}

// refusingTransport is a network without the API.
type refusingTransport struct{}

func (refusingTransport) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("connection refused")
}

// TestRun_NoNetwork: nor does a network without the API hold anybody up.
func TestRun_NoNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{api: &api{t: t}}
		r.start(t, &rest.Config{Host: "http://api", Transport: refusingTransport{}})
		r.Take([]death.Death{died("d1", death.Error)})
		time.Sleep(time.Minute)
		if st := r.Stat(); st.Up || st.QueueLength != 1 || st.Errors == 0 {
			t.Errorf("stat %+v", st)
		}
	})
}

// TestRun_NoConfig: a kubeconfig that is not there yet is looked for again.
func TestRun_NoConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{api: &api{t: t}}
		r.start(t, nil)
		r.opt.Kubeconfig = "/nonexistent/kubeconfig"
		r.Take([]death.Death{died("d1", death.Error)})
		time.Sleep(time.Minute)
		if st := r.Stat(); st.Up || st.QueueLength != 1 || st.Errors < 5 {
			t.Errorf("stat %+v", st)
		}
		if w := r.warnings(); len(w) != 1 || !strings.Contains(w[0], "/nonexistent/kubeconfig") {
			t.Errorf("log:\n%s", strings.Join(r.log.lines(), "\n"))
		}
	})
}

// TestNew_NoCluster: outside of a cluster there is no sink.
func TestNew_NoCluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if s := New(Options{Node: "n1"}); s != nil {
		t.Error("there is one")
	}
	// A kubeconfig that is not there yet may come.
	if s := New(Options{Node: "n1", Kubeconfig: t.TempDir() + "/kubeconfig"}); s == nil {
		t.Error("there is none")
	}
}
