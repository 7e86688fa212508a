// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/cluster/clustertest"
	"github.com/coroner-dev/coroner/internal/death"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// killed is a death in a pod, a number of seconds after noon.
func killed(id, pod string, second int) death.Death {
	return death.Death{ID: id, Revision: 1, Time: noon.Add(time.Duration(second) * time.Second), Subject: death.SubjectContainer, Cause: death.OOMContainerLimit, Confidence: death.Certain,
		Container: &death.Container{Name: "main", ID: strings.Repeat(id[:1], 64), Pod: &death.Pod{Namespace: "shop", Name: pod}}}
}

// opened is a cluster as a test's user sees it, and what it said of troubles.
func opened(t *testing.T, s *clustertest.Server, change func(*Options)) (*Cluster, *[]string) {
	t.Helper()
	o, said := Options{Kubeconfig: s.Kubeconfig(t)}, &[]string{}
	o.OnTrouble = func(err error) { *said = append(*said, err.Error()) }
	if change != nil {
		change(&o)
	}
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	c.limit, c.lookIn = 20*time.Second, 50*time.Millisecond
	return c, said
}

func ids(deaths []death.Death) string {
	var out []string
	for _, d := range deaths {
		out = append(out, fmt.Sprintf("%s/%d", d.ID, d.Revision))
	}
	return strings.Join(out, " ")
}

// TestNewest: what several agents say is one list; who does not answer is named.
func TestNewest(t *testing.T) {
	s := clustertest.Start(t)
	twice := killed("b", "web", 2)
	twice.Revision = 2
	s.AddAgent("ops", "coroner-1", "n1", clustertest.NewAgent(t, "n1", killed("a", "web", 1), killed("c", "web", 3), killed("b", "web", 2)))
	s.AddAgent("ops", "coroner-2", "n2", clustertest.NewAgent(t, "n2", twice, killed("d", "api", 4)))
	s.AddAgent("ops", "coroner-3", "n3", nil)
	for _, tc := range []struct {
		name string
		q    api.Query
		n    int
		want string
		told string
	}{
		{"all", api.Query{}, 0, "d/1 c/1 b/2 a/1", "ops/coroner-1 ops/coroner-2"},
		{"two", api.Query{}, 2, "d/1 c/1", "ops/coroner-1 ops/coroner-2"},
		{"of a pod", api.Query{Namespace: "shop", Pod: "api"}, 5, "d/1", "ops/coroner-2"},
		{"none", api.Query{Pod: "x"}, 5, "", ""},
	} {
		c, said := opened(t, s, nil)
		got, err := c.Newest(t.Context(), tc.q, tc.n)
		if err != nil || ids(got) != tc.want {
			t.Errorf("%s: %q, %v; want %q", tc.name, ids(got), err, tc.want)
		}
		if told := strings.Join(c.Told(), " "); told != tc.told {
			t.Errorf("%s: told by %q, want %q", tc.name, told, tc.told)
		}
		if len(*said) != 1 || !strings.Contains((*said)[0], "the agent ops/coroner-3 on node n3 (context test): error trying to reach service") {
			t.Errorf("%s: said %q", tc.name, *said)
		}
	}
	c, said := opened(t, s, func(o *Options) { o.AgentNamespace = "other" })
	if _, err := c.Newest(t.Context(), api.Query{}, 1); !errors.Is(err, ErrNoAgents) || !strings.Contains(err.Error(), "in namespace other") {
		t.Errorf("without agents: %v, %q", err, *said)
	}
}

// TestNewest_OneNode: an agent whose node is meant is asked alone.
func TestNewest_OneNode(t *testing.T) {
	s := clustertest.Start(t)
	onNode := killed("a", "web", 1)
	onNode.Node = "n1"
	s.AddAgent("ops", "coroner-1", "n1", clustertest.NewAgent(t, "n1", onNode))
	s.AddAgent("ops", "coroner-2", "n2", clustertest.NewAgent(t, "n2"))
	c, _ := opened(t, s, nil)
	if got, err := c.Newest(t.Context(), api.Query{Node: "n1"}, 0); err != nil || ids(got) != "a/1" {
		t.Errorf("%q, %v", ids(got), err)
	}
	if slices.ContainsFunc(s.Asked(), func(u string) bool { return strings.Contains(u, "coroner-2:3001") }) {
		t.Errorf("asked %q", s.Asked())
	}
}

// TestRights: an error names the context, the right that is missing, and how to see it.
func TestRights(t *testing.T) {
	for _, tc := range []struct {
		forbid, context string
		want, remedy    []string
	}{
		{"get pods/proxy", "", []string{"context test", "ops/coroner-1", `cannot get resource "pods/proxy"`}, []string{"kubectl auth can-i get pods/proxy -n ops"}},
		{"list pods -A", "", []string{"list pods (context test)", "cluster scope"}, []string{"kubectl auth can-i list pods -A"}},
		{"", "stranger", []string{"context stranger", "Unauthorized"}, []string{"log in again"}},
		{"", "away", []string{"context away", "connection refused"}, []string{"kubectl cluster-info", "--context"}},
	} {
		s := clustertest.Start(t)
		s.AddAgent("ops", "coroner-1", "n1", clustertest.NewAgent(t, "n1", killed("a", "web", 1)))
		s.Forbid(tc.forbid)
		c, _ := opened(t, s, func(o *Options) { o.Context = tc.context })
		_, err := c.Newest(t.Context(), api.Query{}, 1)
		for _, w := range tc.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s%s: %v, want %q", tc.forbid, tc.context, err, w)
			}
		}
		for _, w := range tc.remedy {
			if !strings.Contains(remedyOf(err), w) {
				t.Errorf("%s%s: remedy %q, want %q", tc.forbid, tc.context, remedyOf(err), w)
			}
		}
	}
	s := clustertest.Start(t)
	s.AddAgent("ops", "coroner-1", "n1", clustertest.NewAgent(t, "n1", killed("a", "web", 1)))
	s.Forbid("list pods -A")
	c, _ := opened(t, s, func(o *Options) { o.AgentNamespace = "ops" })
	if got, err := c.Newest(t.Context(), api.Query{}, 1); err != nil || ids(got) != "a/1" {
		t.Errorf("with the agents' namespace: %q, %v", ids(got), err)
	}
}

func TestOpen(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := Open(Options{}); !errors.Is(err, ErrNone) {
		t.Errorf("without a kubeconfig: %v", err)
	}
	if _, err := Open(Options{Kubeconfig: "/no/such/file"}); err == nil || !strings.Contains(err.Error(), "/no/such/file") {
		t.Errorf("without the file: %v", err)
	}
	file := clustertest.Start(t).Kubeconfig(t)
	if _, err := Open(Options{Kubeconfig: file, Context: "nowhere"}); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("without the context: %v", err)
	}
	t.Setenv("KUBECONFIG", file)
	if c, err := Open(Options{}); err != nil || c.Context != "test" || c.Namespace != "shop" {
		t.Errorf("by KUBECONFIG: %+v, %v", c, err)
	}
	if c, err := Open(Options{Context: "away", Namespace: "x"}); err != nil || c.Context != "away" || c.Namespace != "x" {
		t.Errorf("by flags: %+v, %v", c, err)
	}
	if got := Contexts(file); !slices.Equal(got, []string{"away", "stranger", "test"}) {
		t.Errorf("contexts %q", got)
	}
}

// TestHostileAgent: one that answers badly costs no other's answer, and gets
// nothing.
func TestHostileAgent(t *testing.T) {
	var robbed atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { robbed.Store(true) }))
	defer elsewhere.Close()
	for name, h := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/api/v1/deaths", http.StatusTemporaryRedirect)
		},
		"html": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>\x1b[2J</html>")) },
		"half": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4096")
			_, _ = w.Write([]byte(`{"deaths": [{"id": "x"`))
		},
		"endless pages": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"deaths": [], "next": "again"}`))
		},
		"silent":   func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"password": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		"long": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte(`{"error": "` + strings.Repeat("x", 1<<15) + `"}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := clustertest.Start(t)
			s.AddAgent("ops", "bad", "n1", h)
			s.AddAgent("ops", "good", "n2", clustertest.NewAgent(t, "n2", killed("a", "web", 1)))
			c, said := opened(t, s, nil)
			c.limit = 5 * time.Second // the good one has to answer in it, too
			got, err := c.Newest(t.Context(), api.Query{}, 0)
			if err != nil || ids(got) != "a/1" || len(*said) != 1 || !strings.Contains((*said)[0], "ops/bad") || len((*said)[0]) > 4<<10 {
				t.Errorf("%q, %v, said %.300q", ids(got), err, *said)
			}
			if robbed.Load() {
				t.Error("a redirect was followed")
			}
		})
	}
}

// TestBrokenAPI: an API server that answers badly gives an error that names the
// context, soon.
func TestBrokenAPI(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"crowded": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		"error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"html":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>\x00</html>")) },
		"half": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "4096")
			_, _ = w.Write([]byte(`{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"na`))
		},
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"another thing": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"kind":"Secret","apiVersion":"v1"}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := clustertest.Start(t)
			s.AddAgent("ops", "coroner-1", "n1", clustertest.NewAgent(t, "n1"))
			s.Break(h)
			c, _ := opened(t, s, nil)
			c.limit = time.Second
			began := time.Now()
			_, listed := c.Newest(t.Context(), api.Query{}, 1)
			_, err := c.Why(t.Context(), []api.Query{{Namespace: "shop", Pod: "web"}}, "", 1)
			for _, err := range []error{listed, err} {
				if err == nil || !strings.Contains(err.Error(), "context test") {
					t.Errorf("%v", err)
				}
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

// crashed is a pod whose container was killed, as the API says.
func crashed(name, node string) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID, p.Generation = "shop", name, "6b3f0c1e-0000-4000-8000-000000000001", 1
	p.Spec.NodeName, p.Spec.Containers = node, []corev1.Container{{Name: "main"}}
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "main", RestartCount: 1,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: 137, Reason: "OOMKilled", ContainerID: "containerd://" + strings.Repeat("ab", 32), StartedAt: metav1.NewTime(noon), FinishedAt: metav1.NewTime(noon.Add(time.Minute)),
		}},
	}}
	return p
}

// TestWhy: the agent of the pod's node is asked first, then the others, then the API.
func TestWhy(t *testing.T) {
	web := []api.Query{{Namespace: "shop", Pod: "web"}, {Namespace: "shop", Container: "web"}}
	for _, tc := range []struct {
		name    string
		node    string // of the pod; "": there is none
		ended   bool
		forbid  string
		near    http.Handler
		agents  []string // whose answer it is
		who     api.Who
		reason  string
		remedy  string
		unasked string
		err     string
	}{
		{name: "the node's agent", node: "n1", agents: []string{"ops/coroner-1"}, who: api.WhoAgents, unasked: "coroner-2"},
		{name: "it was on another node", node: "n2", agents: []string{"ops/coroner-1"}, who: api.WhoAgents},
		{name: "the pod is gone", agents: []string{"ops/coroner-1"}, who: api.WhoAgents},
		{name: "no agent knows", node: "n1", ended: true, near: clustertest.NewAgent(t, "n1"), who: api.WhoKubernetes, reason: "no agent knows"},
		{name: "no agent there", node: "n3", ended: true, near: clustertest.NewAgent(t, "n1"), who: api.WhoKubernetes, reason: "no agent runs on its node n3"},
		{name: "no right", node: "n1", ended: true, forbid: "get pods/proxy", who: api.WhoKubernetes, reason: `cannot get resource "pods/proxy"`, remedy: "kubectl auth can-i get pods/proxy -n ops"},
		{name: "no agents to be seen", node: "n1", ended: true, forbid: "list pods", who: api.WhoKubernetes, reason: "list pods (context test)", remedy: "kubectl auth can-i list pods -A"},
		{name: "no right to pods", node: "n1", forbid: "get pods", agents: []string{"ops/coroner-1"}, who: api.WhoAgents},
		{name: "nobody knows", node: "n1", near: clustertest.NewAgent(t, "n1"), err: "tells of no death in shop/web: the pod is Running"},
		{name: "another node's agent, but the API knows of a later one", node: "n2", ended: true, who: api.WhoKubernetes, reason: "no agent knows"},
		{name: "there is no such pod", near: clustertest.NewAgent(t, "n1"), err: "no agent knows of such a death"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := clustertest.Start(t)
			if tc.node != "" {
				p := crashed("web", tc.node)
				if !tc.ended {
					p.Status.ContainerStatuses = nil
				}
				s.Add(p)
			}
			if tc.near == nil {
				tc.near = clustertest.NewAgent(t, "n1", killed("a", "web", 1), killed("b", "web", 2))
			}
			s.AddAgent("ops", "coroner-1", "n1", tc.near)
			s.AddAgent("ops", "coroner-2", "n2", clustertest.NewAgent(t, "n2", killed("c", "api", 9)))
			s.Forbid(tc.forbid)
			c, said := opened(t, s, nil)
			a, err := c.Why(t.Context(), web, "", 1)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, remedy %q; want %q", err, remedyOf(err), tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if a.By.Who != tc.who || !slices.Equal(a.By.Agents, tc.agents) || !strings.Contains(a.By.Reason, tc.reason) || a.By.Context != "test" || len(a.Deaths) != 1 {
				t.Errorf("by %+v: %s; said %q", a.By, ids(a.Deaths), *said)
			}
			if d := a.Deaths[0]; tc.who == api.WhoAgents && d.ID != "b" || tc.who == api.WhoKubernetes && (!strings.Contains(a.By.Remedy, tc.remedy) || d.Cause != death.OOMContainerLimit || d.Confidence == death.Certain || a.By.Lacks == "" || d.Node != tc.node) {
				t.Errorf("death %+v by %+v", d, a.By)
			}
			if tc.unasked != "" && slices.ContainsFunc(s.Asked(), func(u string) bool { return strings.Contains(u, tc.unasked) }) {
				t.Errorf("asked %q", s.Asked())
			}
		})
	}
}

// TestWhy_ID: a death's own id is known to whoever told it.
func TestWhy_ID(t *testing.T) {
	s := clustertest.Start(t)
	s.AddAgent("ops", "coroner-1", "n1", clustertest.NewAgent(t, "n1"))
	s.AddAgent("ops", "coroner-2", "n2", clustertest.NewAgent(t, "n2", killed("abcdef", "api", 9)))
	c, said := opened(t, s, nil)
	a, err := c.Why(t.Context(), []api.Query{{Namespace: "shop", Pod: "abcdef"}}, "abcdef", 1)
	if err != nil || ids(a.Deaths) != "abcdef/1" || !slices.Equal(a.By.Agents, []string{"ops/coroner-2"}) || len(*said) != 0 {
		t.Errorf("%+v, %v, said %q", a, err, *said)
	}
}

// TestStream: deaths of all agents come, of one that comes later too.
func TestStream(t *testing.T) {
	s := clustertest.Start(t)
	one, two := clustertest.NewAgent(t, "n1", killed("a", "web", 1)), clustertest.NewAgent(t, "n2")
	s.AddAgent("ops", "coroner-1", "n1", one)
	s.AddAgent("ops", "coroner-3", "n3", nil)
	c, said := opened(t, s, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	came, done := make(chan string, 16), make(chan error, 1)
	go func() {
		done <- c.Stream(ctx, api.Query{}, func(d death.Death) error { came <- d.ID; return nil })
	}()
	// A stream begins with what comes after it was opened: tell until it is heard.
	tell := func(a *clustertest.Agent, name string) {
		t.Helper()
		again := time.NewTicker(20 * time.Millisecond)
		defer again.Stop()
		for i := 1; ; i++ {
			d := killed(name, "web", 5)
			d.Revision = i
			a.Put(d)
			select {
			case got := <-came:
				if got == name {
					return
				}
			case <-again.C:
			case <-ctx.Done():
				t.Fatalf("%s never came", name)
			}
		}
	}
	tell(one, "b")
	s.AddAgent("ops", "coroner-2", "n2", two)
	tell(two, "c")
	tell(one, "d")
	// The pod of an agent is made anew; its history stays on the node.
	s.Remove("ops", "coroner-1")
	s.Cut()
	one.Put(killed("e", "web", 6))
	s.AddAgent("ops", "coroner-9", "n1", one)
	for got := ""; got != "e"; {
		select {
		case got = <-came:
		case <-ctx.Done():
			t.Fatal("what was told between two agents of a node never came")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(*said) == 0 || !strings.Contains((*said)[0], "ops/coroner-3") || slices.ContainsFunc(*said, func(s string) bool { return strings.Contains(s, "coroner-9") }) {
		t.Errorf("said %q", *said)
	}
}

// TestFollow_Marks: where a stream stands is known before it brings a death: the
// node's next agent goes on from there.
func TestFollow_Marks(t *testing.T) {
	s := clustertest.Start(t)
	one := clustertest.NewAgent(t, "n1", killed("a", "web", 1))
	s.AddAgent("ops", "coroner-1", "n1", one)
	c, _ := opened(t, s, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	agents, err := c.agents(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{c: c, from: make(chan told), live: map[string]bool{}, lastID: map[string]string{}, said: map[string]string{}}
	none := func(d death.Death) error { return fmt.Errorf("%s was told", d.ID) }
	w.wg.Go(func() { w.follow(ctx, agents[0], "") })
	if err := w.take(<-w.from, none); err != nil || w.lastID["n1"] == "" {
		t.Fatalf("the stream stands at %q: %v", w.lastID["n1"], err)
	}
	cancel()
	w.wg.Wait()

	one.Put(killed("b", "web", 2)) // while nobody follows
	ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w.wg.Go(func() { w.follow(ctx, agents[0], w.lastID["n1"]) })
	var came []string
	for len(came) == 0 {
		if err := w.take(<-w.from, func(d death.Death) error { came = append(came, d.ID); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if came[0] != "b" {
		t.Errorf("told %q, want b", came)
	}
	cancel()
	w.wg.Wait()
}

// TestStream_Nobody: where no agent can be followed, that is an error.
func TestStream_Nobody(t *testing.T) {
	s := clustertest.Start(t)
	s.AddAgent("ops", "coroner-1", "n1", nil)
	s.AddAgent("ops", "coroner-2", "n2", nil)
	c, _ := opened(t, s, nil)
	c.lookIn = time.Minute
	if err := c.Stream(t.Context(), api.Query{}, func(death.Death) error { return nil }); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v", err)
	}
}

// TestNodes: the map of one node, or of all, also when some agents do not answer
// or a node has two.
func TestNodes(t *testing.T) {
	s := clustertest.Start(t)
	young, old := clustertest.NewAgent(t, "n1"), clustertest.NewAgent(t, "n1")
	young.Map.GrowthSeconds, old.Map.GrowthSeconds = 5, 300
	s.AddAgent("ops", "coroner-2", "n2", clustertest.NewAgent(t, "n2"))
	s.AddAgent("ops", "coroner-1", "n1", young)
	s.AddAgent("ops", "coroner-3", "n3", nil)
	s.AddAgent("ops", "coroner-4", "n1", old)
	c, said := opened(t, s, nil)
	one, err := c.Nodes(t.Context(), "n1")
	if err != nil || len(one) != 1 || one[0].Node != "n1" || one[0].GrowthSeconds != 300 || len(*said) != 0 {
		t.Errorf("one: %+v, %v, said %q", one, err, *said)
	}
	all, err := c.Nodes(t.Context(), "")
	if err != nil || len(all) != 2 || all[0].Node != "n1" || all[1].Node != "n2" || len(*said) != 1 || !strings.Contains((*said)[0], "coroner-3 on node n3") {
		t.Errorf("all: %+v, %v, said %q", all, err, *said)
	}
	if names, err := c.AgentNodes(t.Context()); err != nil || strings.Join(names, " ") != "n1 n2 n3" {
		t.Errorf("nodes with an agent: %q, %v", names, err)
	}
	s.Forbid("get pods/proxy")
	for _, node := range []string{"n1", ""} {
		var e *Error
		if _, err := c.Nodes(t.Context(), node); !errors.As(err, &e) || !strings.Contains(e.Remedy, "the right to get pods/proxy") || !strings.Contains(e.Remedy, "kubectl auth can-i get pods/proxy -n ops") {
			t.Errorf("without the right, of node %q: %v, %+v", node, err, e)
		}
	}
	if _, err := c.Nodes(t.Context(), "n9"); !errors.Is(err, ErrNoAgents) || !strings.Contains(err.Error(), "on node n9") {
		t.Errorf("of a node without: %v", err)
	}
}
