// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// api is an API server that a test plays.
type api struct {
	mu      sync.Mutex
	pods    []*corev1.Pod
	version int
	watches []chan string // lines to send, closed: hang up
	// fail answers the next requests; it returns true where it did.
	fail func(w http.ResponseWriter, r *http.Request) bool
	asks []string

	node        *corev1.Node // nil: whoever asks may not
	nodeWatches []chan string
	jobs        map[string]*metav1.PartialObjectMetadata // by NAMESPACE/NAME; nil: whoever asks may not
	events      []corev1.Event
	ahead       time.Duration // how far its clock is ahead
}

// forbid answers as an API server does to whom it does not let see something.
func forbid(w http.ResponseWriter, what string) {
	w.WriteHeader(http.StatusForbidden)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden,
		Message: what + ` is forbidden: User "system:serviceaccount:coroner:agent" cannot do that`,
	})
}

// beside answers what is not about pods; true: it did.
func (a *api) beside(w http.ResponseWriter, r *http.Request) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/events"):
		_ = json.NewEncoder(w).Encode(corev1.EventList{Items: a.events})
	case strings.HasPrefix(r.URL.Path, "/apis/batch/v1/namespaces/"):
		p := strings.Split(r.URL.Path, "/")
		switch j := a.jobs[p[5]+"/"+p[7]]; {
		case a.jobs == nil:
			forbid(w, "jobs.batch")
		case j == nil:
			http.NotFound(w, r)
		default:
			_ = json.NewEncoder(w).Encode(j)
		}
	case r.URL.Path == "/api/v1/nodes" && a.node == nil:
		forbid(w, "nodes")
	default:
		return false
	}
	return true
}

// watchNode tells of the node until whoever asks goes.
func (a *api) watchNode(w http.ResponseWriter, r *http.Request) {
	lines := make(chan string, 256)
	a.mu.Lock()
	lines <- node2json("ADDED", a.node)
	lines <- `{"type":"BOOKMARK","object":{"kind":"Node","apiVersion":"v1","metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}`
	a.nodeWatches = append(a.nodeWatches, lines)
	a.mu.Unlock()
	for {
		select {
		case l := <-lines:
			_, _ = fmt.Fprintln(w, l)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func node2json(kind string, n *corev1.Node) string {
	m := *n
	m.TypeMeta = metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}
	text, _ := json.Marshal(map[string]any{"type": kind, "object": &m})
	return string(text)
}

// changeNode is a new state of the node, told to all that watch.
func (a *api) changeNode(n *corev1.Node) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.node = n
	for _, w := range a.nodeWatches {
		w <- node2json("MODIFIED", n)
	}
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.asks = append(a.asks, r.URL.String())
	fail := a.fail
	a.mu.Unlock()
	if fail != nil && fail(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Date", time.Now().Add(a.ahead).UTC().Format(http.TimeFormat))
	switch {
	case a.beside(w, r):
	case r.URL.Path == "/api/v1/nodes" && r.URL.Query().Get("watch") == "":
		a.mu.Lock()
		defer a.mu.Unlock()
		_ = json.NewEncoder(w).Encode(corev1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []corev1.Node{*a.node}})
	case r.URL.Path == "/api/v1/nodes":
		a.watchNode(w, r)
	case r.URL.Query().Get("watch") != "":
		a.watch(w, r)
	default:
		a.mu.Lock()
		defer a.mu.Unlock()
		l := corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: fmt.Sprint(a.version)}}
		for _, p := range a.pods {
			l.Items = append(l.Items, *p)
		}
		_ = json.NewEncoder(w).Encode(l)
	}
}

func (a *api) watch(w http.ResponseWriter, r *http.Request) {
	lines := make(chan string, 256)
	a.mu.Lock()
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, p := range a.pods {
			lines <- event2json("ADDED", p)
		}
		lines <- fmt.Sprintf(`{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"%d","annotations":{"k8s.io/initial-events-end":"true"}}}}`, a.version)
	}
	a.watches = append(a.watches, lines)
	a.mu.Unlock()
	w.(http.Flusher).Flush()
	for {
		select {
		case l, ok := <-lines:
			if !ok {
				return
			}
			_, _ = fmt.Fprintln(w, l)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func event2json(kind string, p *corev1.Pod) string {
	q := *p
	q.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	text, _ := json.Marshal(map[string]any{"type": kind, "object": &q})
	return string(text)
}

// change is a new state of a pod, told to all that watch.
func (a *api) change(kind string, p *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	p.ResourceVersion = fmt.Sprint(a.version)
	a.pods = slices.DeleteFunc(a.pods, func(q *corev1.Pod) bool { return q.UID == p.UID })
	if kind != "DELETED" {
		a.pods = append(a.pods, p)
	}
	for _, w := range a.watches {
		w <- event2json(kind, p)
	}
}

// hangUp ends all watches.
func (a *api) hangUp() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.watches {
		close(w)
	}
	a.watches = nil
}

// failing answers all with a status until the returned function is called.
func (a *api) failing(answer func(w http.ResponseWriter, r *http.Request) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail = answer
}

const (
	podUID = types.UID("6b3f0c1e-0000-4000-8000-000000000001")
	mainID = "4c5dcde97b11e1e9c5584806cbb5765c4255115b7d39707ba58f364372fddce3"
)

// running is a pod with one container that runs.
func running(name string, uid types.UID, id string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", UID: uid},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "main", Image: "shop/web:3"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, QOSClass: corev1.PodQOSBurstable, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", ContainerID: "containerd://" + id, Image: "shop/web:3",
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		}}},
	}
}

func ended(name string, uid types.UID, id string, code int32) *corev1.Pod {
	p := running(name, uid, id)
	p.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: code, Reason: "Error", ContainerID: "containerd://" + id, StartedAt: metav1.Now(), FinishedAt: metav1.NewTime(time.Now().Add(2 * time.Second)),
	}}
	return p
}

// listener keeps what a source says.
type listener struct {
	mu   sync.Mutex
	said []signal.Signal
	more chan struct{}
}

func (l *listener) emit(s signal.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, s)
	close(l.more)
	l.more = make(chan struct{})
}

// until waits for a signal that fits, and gives it.
func (l *listener) until(t *testing.T, what string, fits func(signal.Body) bool) signal.Signal {
	t.Helper()
	late := time.After(60 * time.Second)
	for {
		l.mu.Lock()
		more := l.more
		for _, s := range l.said {
			if fits(s.Body) {
				l.mu.Unlock()
				return s
			}
		}
		l.mu.Unlock()
		select {
		case <-more:
		case <-late:
			t.Fatalf("%s: never told; told %+v", what, l.said)
		}
	}
}

func exitOf(id string) func(signal.Body) bool {
	return func(b signal.Body) bool { x, ok := b.(signal.ContainerExit); return ok && x.ID == id }
}

func isUp(up bool, reason string) func(signal.Body) bool {
	return func(b signal.Body) bool {
		s, ok := b.(signal.SourceState)
		return ok && s.Up == up && strings.Contains(s.Reason, reason)
	}
}

// follow runs a source against a played API.
func follow(t *testing.T, a *api, with ...func(*Options)) (*Source, *listener) {
	t.Helper()
	srv := httptest.NewServer(a)
	opt := Options{Node: "n1"}
	for _, set := range with {
		set(&opt)
	}
	s := New(opt)
	s.config = &rest.Config{Host: srv.URL}
	l := &listener{more: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l.emit) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		srv.CloseClientConnections()
		srv.Close()
	})
	return s, l
}

// TestRun_Follows: pods there are, that come, end and go.
func TestRun_Follows(t *testing.T) {
	a := &api{version: 1, pods: []*corev1.Pod{running("web-1", podUID, mainID)}, events: []corev1.Event{{Reason: "Killing", Message: "Stopping container main", Count: 1}}}
	s, l := follow(t, a)
	l.until(t, "web-1", func(b signal.Body) bool {
		c, ok := b.(signal.ContainerSeen)
		return ok && c.Container.ID == mainID && c.Container.Name == "main" && c.Container.Pod.Name == "web-1" && c.Container.Image == "shop/web:3"
	})
	l.until(t, "that it is up", isUp(true, ""))
	other := types.UID("6b3f0c1e-0000-4000-8000-000000000002")
	otherID := strings.Repeat("ab", 32)
	a.change("ADDED", running("web-2", other, otherID))
	l.until(t, "web-2", func(b signal.Body) bool { p, ok := b.(signal.PodSeen); return ok && p.Pod.Name == "web-2" })
	a.change("MODIFIED", ended("web-2", other, otherID, 3))
	x := l.until(t, "the end of web-2", exitOf(otherID))
	if code := x.Body.(signal.ContainerExit).Code; code == nil || *code != 3 || x.Recovered {
		t.Errorf("the end: %+v", x)
	}
	a.change("DELETED", ended("web-2", other, otherID, 3))
	l.until(t, "that web-2 is gone", func(b signal.Body) bool { p, ok := b.(signal.PodGone); return ok && p.UID == string(other) })
	if got := s.Events(t.Context(), death.Pod{Namespace: "shop", UID: string(podUID)}, time.Now()); len(got.Events) != 1 || got.Events[0].Reason != "Killing" || got.Error != "" {
		t.Errorf("events %+v", got)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ask := range a.asks {
		if strings.Contains(ask, "/pods") && !strings.Contains(ask, "fieldSelector=spec.nodeName%3Dn1") {
			t.Errorf("asked for more than this node's pods: %s", ask)
		}
	}
}

// TestRun_Trouble: an API that fails in each way costs nothing that it still
// tells once it is back.
func TestRun_Trouble(t *testing.T) {
	status := func(code int, reason metav1.StatusReason) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(metav1.Status{
				TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: "the test says " + string(reason),
			})
			return true
		}
	}
	for name, tc := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request) bool
		says   string
	}{
		"gone":      {status(http.StatusGone, metav1.StatusReasonExpired), "Expired"},
		"forbidden": {status(http.StatusForbidden, metav1.StatusReasonForbidden), "may not"},
		"crowded":   {status(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests), ""},
		"broken":    {status(http.StatusInternalServerError, metav1.StatusReasonInternalError), ""},
		"half": {func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "4096")
			_, _ = w.Write([]byte(`{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"na`))
			return true
		}, "ended before"},
		"garbage": {func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("<html>\x00</html>"))
			return true
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &api{version: 1, pods: []*corev1.Pod{running("web-1", podUID, mainID)}}
			_, l := follow(t, a)
			l.until(t, "web-1", func(b signal.Body) bool { p, ok := b.(signal.PodSeen); return ok && p.Pod.Name == "web-1" })
			a.failing(tc.answer)
			a.hangUp()
			l.until(t, "that it is down", isUp(false, tc.says))
			a.change("MODIFIED", ended("web-1", podUID, mainID, 7))
			a.failing(nil)
			x := l.until(t, "the end of web-1", exitOf(mainID))
			if code := x.Body.(signal.ContainerExit).Code; code == nil || *code != 7 {
				t.Errorf("the end: %+v", x)
			}
		})
	}
}

// TestRun_NoWatchList: an API that does not begin a watch with all pods (etcd before
// 3.5) says so in the watch. It is not away for that.
func TestRun_NoWatchList(t *testing.T) {
	t.Parallel()
	a := &api{version: 1, node: aNode(t), pods: []*corev1.Pod{running("web-1", podUID, mainID)}}
	a.failing(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("sendInitialEvents") != "true" {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintln(w, `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled","reason":"Invalid","code":422}}`)
		return true
	})
	_, l := follow(t, a)
	l.until(t, "web-1", func(b signal.Body) bool { p, ok := b.(signal.PodSeen); return ok && p.Pod.Name == "web-1" })
	l.until(t, "that it is up", isUp(true, ""))
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.said {
		if st, ok := s.Body.(signal.SourceState); ok && !st.Up {
			t.Errorf("told as away: %s", st.Reason)
		}
	}
}

// TestRun_NoCluster: outside of a cluster there is nothing to watch.
func TestRun_NoCluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	s := New(Options{Node: "n1"})
	l := &listener{more: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l.emit) }()
	l.until(t, "that there is none", func(b signal.Body) bool { s, ok := b.(signal.SourceState); return ok && s.Absent })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
