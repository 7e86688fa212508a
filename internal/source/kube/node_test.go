// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// nodeJSON is what a real kubelet (1.34.4) wrote of its node, without what is
// not read.
const nodeJSON = `{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "resourceVersion": "1367"},
 "spec": {"taints": [{"effect": "NoSchedule", "key": "node.kubernetes.io/memory-pressure", "timeAdded": "2026-11-22T00:09:55Z"}, {"effect": "NoExecute", "key": "dedicated", "value": "batch"}]},
 "status": {
  "allocatable": {"cpu": "2", "ephemeral-storage": "267847642337", "hugepages-2Mi": "0", "memory": "24172096Ki", "pods": "110"},
  "capacity": {"cpu": "2", "ephemeral-storage": "264212084Ki", "hugepages-2Mi": "0", "memory": "24684096Ki", "pods": "110"},
  "conditions": [
   {"lastHeartbeatTime": "2026-11-22T00:12:15Z", "lastTransitionTime": "2026-11-22T00:09:55Z", "message": "kubelet has insufficient memory available", "reason": "KubeletHasInsufficientMemory", "status": "True", "type": "MemoryPressure"},
   {"lastHeartbeatTime": "2026-11-22T00:12:15Z", "lastTransitionTime": "2026-11-21T23:54:32Z", "message": "kubelet is posting ready status", "reason": "KubeletReady", "status": "True", "type": "Ready"},
   {"lastHeartbeatTime": "2026-11-22T00:12:15Z", "lastTransitionTime": "2026-11-21T23:54:32Z", "message": "m", "reason": "r", "status": "False", "type": "NetworkUnavailable"}]}}`

func aNode(t *testing.T) *corev1.Node {
	t.Helper()
	var n corev1.Node
	if err := json.Unmarshal([]byte(nodeJSON), &n); err != nil {
		t.Fatal(err)
	}
	return &n
}

func num(n int64) *int64 { return &n }

// TestNode: what is told of a real node.
func TestNode(t *testing.T) {
	at := time.Date(2026, 11, 22, 0, 9, 55, 0, time.UTC)
	want := signal.NodeSeen{
		Name:        "n1",
		Capacity:    signal.NodeResources{MemoryBytes: num(24684096 << 10), StorageBytes: num(264212084 << 10), MilliCPU: num(2000), Pods: num(110)},
		Allocatable: signal.NodeResources{MemoryBytes: num(24172096 << 10), StorageBytes: num(267847642337), MilliCPU: num(2000), Pods: num(110)},
		Conditions: []signal.NodeCondition{
			{Type: "MemoryPressure", Status: "True", Reason: "KubeletHasInsufficientMemory", Message: "kubelet has insufficient memory available", Since: at},
			{Type: "Ready", Status: "True", Reason: "KubeletReady", Message: "kubelet is posting ready status", Since: time.Date(2026, 11, 21, 23, 54, 32, 0, time.UTC)},
		},
		Taints: []signal.Taint{{Key: "node.kubernetes.io/memory-pressure", Effect: "NoSchedule", Added: at}, {Key: "dedicated", Value: "batch", Effect: "NoExecute"}},
	}
	if diff := cmp.Diff(want, reader{}.node(aNode(t))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestNode_Hostile: a node with more and longer of all than there can be.
func TestNode_Hostile(t *testing.T) {
	n, long := aNode(t), strings.Repeat("\xff\n", 1<<17)
	n.Name = long
	for range 1000 {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: long, Value: long})
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeDiskPressure, Reason: long, Message: long})
	}
	text, err := json.Marshal(reader{}.node(n))
	if err != nil || len(text) > 64<<10 {
		t.Errorf("%d bytes are told of it: %v", len(text), err)
	}
}

func nodeWith(memory int64, pressure string) func(signal.Body) bool {
	return func(b signal.Body) bool {
		n, ok := b.(signal.NodeSeen)
		return ok && n.Capacity.MemoryBytes != nil && *n.Capacity.MemoryBytes == memory && n.Conditions[0].Status == pressure
	}
}

// TestRun_Node: the node is followed, and a heartbeat is no news.
func TestRun_Node(t *testing.T) {
	t.Parallel()
	a := &api{version: 1, node: aNode(t)}
	_, l := follow(t, a)
	l.until(t, "the node", nodeWith(24684096<<10, "True"))
	beat := aNode(t)
	beat.Status.Conditions[0].LastHeartbeatTime = metav1.Now()
	a.changeNode(beat)
	calm := aNode(t)
	calm.Status.Conditions[0].Status = corev1.ConditionFalse
	a.changeNode(calm)
	l.until(t, "the end of the pressure", nodeWith(24684096<<10, "False"))
	l.mu.Lock()
	defer l.mu.Unlock()
	told := 0
	for _, s := range l.said {
		if _, ok := s.Body.(signal.NodeSeen); ok {
			told++
		}
	}
	if told != 2 {
		t.Errorf("the node was told %d times, want 2", told)
	}
}

// TestRun_NoRightToNodes: the right that is missing is said, and pods are
// followed all the same; it is not asked for again at once.
func TestRun_NoRightToNodes(t *testing.T) {
	t.Parallel()
	a := &api{version: 1, pods: []*corev1.Pod{running("web-1", podUID, mainID)}}
	_, l := follow(t, a)
	l.until(t, "web-1", func(b signal.Body) bool { p, ok := b.(signal.PodSeen); return ok && p.Pod.Name == "web-1" })
	l.until(t, "that nodes may not be seen", isUp(true, "watch nodes: the service account may not"))
	a.change("MODIFIED", ended("web-1", podUID, mainID, 3))
	l.until(t, "the end of web-1", exitOf(mainID))
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, ask := range a.asks {
		if strings.Contains(ask, "/nodes") {
			n++
			if !strings.Contains(ask, "fieldSelector=metadata.name%3Dn1") {
				t.Errorf("asked for more than this node: %s", ask)
			}
		}
	}
	if n != 1 {
		t.Errorf("asked for the node %d times", n)
	}
}

const jobUID = types.UID("6b3f0c1e-0000-4000-8000-0000000000aa")

// ofJob is a pod of a Job.
func ofJob(name string, uid types.UID, id, job string) *corev1.Pod {
	p := running(name, uid, id)
	p.CreationTimestamp = metav1.Now()
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: job, UID: jobUID, Controller: yes()}}
	return p
}

func ownedAs(o death.Owner) func(signal.Body) bool {
	return func(b signal.Body) bool {
		c, ok := b.(signal.ContainerSeen)
		return ok && c.Container.Pod.Owner != nil && *c.Container.Pod.Owner == o
	}
}

// TestRun_NodeForbiddenForAMoment: an API server that starts knows nobody's
// rights; the node is asked for again soon.
func TestRun_NodeForbiddenForAMoment(t *testing.T) {
	t.Parallel()
	a := &api{version: 1}
	_, l := follow(t, a)
	l.until(t, "that nodes may not be seen", isUp(true, "nodes: the service account may not"))
	a.changeNode(aNode(t))
	l.until(t, "the node", func(b signal.Body) bool { _, ok := b.(signal.NodeSeen); return ok })
}

// TestRun_OwnerOfJob: whose a Job is, the Job itself says, asked once; without
// the right to ask its name does, where it proves it.
func TestRun_OwnerOfJob(t *testing.T) {
	minute := time.Now().Unix() / 60
	cronned := fmt.Sprint("backup-", minute)
	for _, tc := range []struct {
		name, job string
		refs      []metav1.OwnerReference // of the Job
		forbidden bool
		want      []death.Owner // in this order, the last stays
	}{
		{"of a CronJob", cronned, []metav1.OwnerReference{{Kind: "CronJob", Name: "backup", Controller: yes()}}, false, []death.Owner{{Kind: "CronJob", Name: "backup", Inferred: true}, {Kind: "CronJob", Name: "backup"}}},
		{"made by hand of a CronJob", "backup-by-hand", []metav1.OwnerReference{{Kind: "CronJob", Name: "backup", Controller: yes()}}, false, []death.Owner{{Kind: "CronJob", Name: "backup"}}},
		{"alone, with such a name", cronned, nil, false, []death.Owner{{Kind: "Job", Name: cronned}}},
		{"no right", cronned, nil, true, []death.Owner{{Kind: "CronJob", Name: "backup", Inferred: true}}},
		{"no right, and the name says nothing", "backup-1", nil, true, []death.Owner{{Kind: "Job", Name: "backup-1"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a := &api{version: 1, pods: []*corev1.Pod{ofJob("b-1", podUID, mainID, tc.job)}}
			if !tc.forbidden {
				a.jobs = map[string]*metav1.PartialObjectMetadata{"shop/" + tc.job: {ObjectMeta: metav1.ObjectMeta{UID: jobUID, OwnerReferences: tc.refs}}}
			}
			_, l := follow(t, a)
			for _, o := range tc.want {
				l.until(t, fmt.Sprint(o), ownedAs(o))
			}
			if tc.forbidden {
				l.until(t, "the right that is missing", isUp(true, "get jobs: the service account may not"))
			}
			a.change("ADDED", ofJob("b-2", "6b3f0c1e-0000-4000-8000-000000000002", strings.Repeat("ab", 32), tc.job))
			l.until(t, "the second pod, known at once", func(b signal.Body) bool {
				p, ok := b.(signal.PodSeen)
				return ok && p.Pod.Name == "b-2" && *p.Pod.Owner == tc.want[len(tc.want)-1]
			})
			a.mu.Lock()
			defer a.mu.Unlock()
			if n := strings.Count(strings.Join(a.asks, "\n"), "/jobs/"); n != 1 {
				t.Errorf("asked for the Job %d times", n)
			}
		})
	}
}

// TestCronJob: names that prove nothing.
func TestCronJob(t *testing.T) {
	made := time.Date(2026, 11, 22, 0, 10, 5, 0, time.UTC)
	minute := made.Unix() / 60
	for name, want := range map[string]string{
		fmt.Sprint("a-b-", minute):           "a-b",
		fmt.Sprint("late-", minute-59):       "late",
		fmt.Sprint("long-ago-", minute-61):   "",
		fmt.Sprint("to-come-", minute+5):     "",
		fmt.Sprint("-", minute):              "",
		fmt.Sprint("zero-0", minute):         "",
		fmt.Sprint("plus-+", minute):         "",
		fmt.Sprint(minute):                   "",
		"import-2026":                        "",
		"x-99999999999999999999999999999999": "",
	} {
		got, ok := cronJob(name, made)
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if _, ok := cronJob(fmt.Sprint("a-", minute), time.Time{}); ok {
		t.Error("a pod without a time of its making proves a name")
	}
}

// TestRun_Kubelet: where the API is away, the kubelet gives the pods, and what it
// does not know is not forgotten; once the API is back it tells them again.
func TestRun_Kubelet(t *testing.T) {
	t.Parallel()
	static := running("etcd-n1", "0123456789abcdef0123456789abcdef", mainID)
	static.Annotations = map[string]string{"kubernetes.io/config.hash": "0123456789abcdef0123456789abcdef", "kubernetes.io/config.source": "file"}
	asked := make(chan string, 100)
	kubelet := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path + " " + r.Header.Get("Authorization")
		_ = json.NewEncoder(w).Encode(corev1.PodList{Items: []corev1.Pod{*static}})
	}))
	defer kubelet.Close()
	a := &api{version: 1, pods: []*corev1.Pod{running("web-1", podUID, strings.Repeat("ab", 32))}}
	broken := func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	_, l := follow(t, a, func(o *Options) { o.Kubelet = kubelet.URL })
	l.until(t, "web-1", func(b signal.Body) bool { p, ok := b.(signal.PodSeen); return ok && p.Pod.Name == "web-1" })
	a.failing(broken)
	a.hangUp()
	l.until(t, "the static pod", func(b signal.Body) bool {
		c, ok := b.(signal.ContainerSeen)
		return ok && c.Container.Pod.Name == "etcd-n1" && c.Container.Pod.UID == "0123456789abcdef0123456789abcdef"
	})
	l.until(t, "by whom", func(b signal.Body) bool {
		s, ok := b.(signal.SourceState)
		return ok && s.Up && s.Mode == "kubelet" && s.Reason != ""
	})
	if got := <-asked; got != "/pods " {
		t.Errorf("asked %q", got)
	}
	mirror := running("etcd-n1", "6b3f0c1e-0000-4000-8000-0000000000ee", mainID)
	mirror.Annotations = map[string]string{"kubernetes.io/config.mirror": "0123456789abcdef0123456789abcdef"}
	a.change("ADDED", mirror)
	a.failing(nil)
	other := strings.Repeat("cd", 32)
	a.change("ADDED", running("web-2", "6b3f0c1e-0000-4000-8000-000000000003", other))
	l.until(t, "web-2", func(b signal.Body) bool { p, ok := b.(signal.PodSeen); return ok && p.Pod.Name == "web-2" })
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.said {
		if g, ok := s.Body.(signal.PodGone); ok {
			t.Errorf("%s is taken for gone", g.UID)
		}
	}
	var last signal.SourceState
	for _, s := range l.said {
		if st, ok := s.Body.(signal.SourceState); ok {
			last = st
		}
	}
	if !last.Up || last.Mode != "api" {
		t.Errorf("at the end it is %+v", last)
	}
}

// TestRun_KubeletRefuses: the right is named that is missing, beside why the API
// is away.
func TestRun_KubeletRefuses(t *testing.T) {
	t.Parallel()
	kubelet := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "Forbidden (user=system:serviceaccount:coroner:agent, verb=get, resource=nodes, subresource(s)=[pods proxy])", http.StatusForbidden)
	}))
	defer kubelet.Close()
	a := &api{version: 1}
	a.failing(func(w http.ResponseWriter, _ *http.Request) bool { forbid(w, "pods"); return true })
	_, l := follow(t, a, func(o *Options) { o.Kubelet = kubelet.URL })
	l.until(t, "both", func(b signal.Body) bool {
		s, ok := b.(signal.SourceState)
		return ok && !s.Up && strings.Contains(s.Reason, "pods: the service account may not") && strings.Contains(s.Reason, "nodes/pods")
	})
}

// TestNewKubelet: to whom a token is given.
func TestNewKubelet(t *testing.T) {
	for _, bad := range []string{"n1:10250", "ftp://n1", "/run/kubelet.sock", "https://"} {
		if _, err := newKubelet(&Options{Kubelet: bad, Node: "n1"}, nil); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	for want, o := range map[string]Options{
		"https://n1:10250/pods":        {Node: "n1"},
		"https://10.0.0.7:10250/pods":  {Node: "n1", NodeAddress: "10.0.0.7"},
		"https://[fd00::7]:10250/pods": {Node: "n1", NodeAddress: "fd00::7"},
		"http://10.0.0.8:10255/pods":   {Node: "n1", NodeAddress: "10.0.0.7", Kubelet: "http://10.0.0.8:10255/"},
	} {
		if k, err := newKubelet(&o, nil); err != nil || k.pods != want {
			t.Errorf("%+v: %+v %v, want %s", o, k, err, want)
		}
	}
}

// TestKubelet_Token: only a kubelet that proves who it is gets the token, and it
// leads nobody elsewhere with it.
func TestKubelet_Token(t *testing.T) {
	asked := make(chan string, 10)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- "elsewhere " + r.Header.Get("Authorization") }))
	defer elsewhere.Close()
	answer := func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Authorization")
		if r.URL.Path != "/pods" {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
			return
		}
		_ = json.NewEncoder(w).Encode(corev1.PodList{})
	}
	proven, plain := httptest.NewTLSServer(http.HandlerFunc(answer)), httptest.NewServer(http.HandlerFunc(answer))
	defer proven.Close()
	defer plain.Close()
	proven.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proven.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	as := &rest.Config{Host: "https://api.example", BearerToken: "secret"}
	for _, tc := range []struct{ at, ca, fails, got string }{
		{proven.URL, ca, "", "Bearer secret"},
		{proven.URL, "", "certificate", ""},
		{plain.URL, "", "", ""},
		{proven.URL + "/away", ca, "302", "Bearer secret"},
	} {
		k, err := newKubelet(&Options{Kubelet: tc.at, Node: "n1", KubeletCA: tc.ca}, as)
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.list(t.Context(), reader{})
		if tc.fails == "" && err != nil || tc.fails != "" && (err == nil || !strings.Contains(err.Error(), tc.fails)) {
			t.Errorf("%+v: %v", tc, err)
		}
		k.http.CloseIdleConnections()
		got := ""
		if tc.fails != "certificate" {
			got = <-asked
		}
		if got != tc.got || len(asked) > 0 {
			t.Errorf("%+v: asked with %q, and %d times more", tc, got, len(asked))
		}
	}
}

// TestKubelet_Bad: answers that are none.
func TestKubelet_Bad(t *testing.T) {
	for _, body := range []string{
		"", "<html>", "[]", `{"items": [{"metadata": {"na`, `{"items": [{}`, `{"items": []`, `{"items": 3}`, `{"items": [3]}`,
		`{"items": [` + strings.Repeat("{},", maxPods) + `{}]}`, `{"metadata": {"a": "` + strings.Repeat("a", 2*maxKubeletPod) + `"}}`,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
		k, err := newKubelet(&Options{Kubelet: srv.URL, Node: "n1"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := k.list(t.Context(), reader{}); err == nil {
			t.Errorf("%.50q is taken for %d pods", body, len(l))
		}
		srv.Close()
	}
}

func FuzzNode(f *testing.F) {
	f.Add([]byte(nodeJSON))
	f.Fuzz(func(t *testing.T, text []byte) {
		n := &corev1.Node{}
		if err := json.Unmarshal(text, n); err != nil {
			return
		}
		seen := reader{}.node(n)
		again := reader{}.node(n)
		if !sameNode(&seen, &again) || len(seen.Conditions) > len(nodeConditions) || len(seen.Taints) > maxTaints {
			t.Errorf("%+v", seen)
		}
	})
}

// TestRun_SlowAPI: an API that is there and does not answer is away.
func TestRun_SlowAPI(t *testing.T) {
	t.Parallel()
	kubelet := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(corev1.PodList{Items: []corev1.Pod{*running("web-1", podUID, mainID)}})
	}))
	defer kubelet.Close()
	a := &api{version: 1}
	a.failing(func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	})
	_, l := follow(t, a, func(o *Options) { o.Kubelet = kubelet.URL })
	l.until(t, "web-1", func(b signal.Body) bool { p, ok := b.(signal.PodSeen); return ok && p.Pod.Name == "web-1" })
	l.until(t, "by whom, and why", func(b signal.Body) bool {
		s, ok := b.(signal.SourceState)
		return ok && s.Up && s.Mode == "kubelet" && s.Reason == errNoAnswer.Error()
	})
}
