// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/cluster"
	"github.com/coroner-dev/coroner/internal/cluster/clustertest"
	"github.com/coroner-dev/coroner/internal/death"
)

// fakeCluster has agents on two nodes of three: n1 knows of deaths in
// shop/cart-1, n2 does not answer, and on n3 there is none.
func fakeCluster(t *testing.T) *clustertest.Server {
	t.Helper()
	text, err := os.ReadFile("testdata/deaths.json")
	if err != nil {
		t.Fatal(err)
	}
	var page api.DeathsPage
	if err := json.Unmarshal(text, &page); err != nil {
		t.Fatal(err)
	}
	for i := range page.Deaths {
		c := page.Deaths[i].Container
		c.Name, c.Workload, c.Pod = "web", nil, &death.Pod{Namespace: "shop", Name: "cart-1"}
	}
	s := clustertest.Start(t)
	one := clustertest.NewAgent(t, "n1", page.Deaths...)
	one.Map = sampleMap(t)
	one.Map.Node = "n1"
	s.AddAgent("ops", "coroner-aaaaa", "n1", one)
	s.AddAgent("ops", "coroner-bbbbb", "n2", nil)
	s.Add(fakePod(t, "cart-1", "n1", `{"state": {"running": {}}}`), fakePod(t, "pay-1", "n3", `{"restartCount": 2,
		"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container"}},
		"lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "startedAt": "2026-11-22T03:00:00Z", "finishedAt": "2026-11-22T03:00:30Z",
			"containerID": "containerd://4c5dcde97b11e1e9c5584806cbb5765c4255115b7d39707ba58f364372fddce3"}}}`),
		fakePod(t, "quiet-1", "n3", `{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}`))
	return s
}

// sampleMap is the map of a node of 64 GiB.
func sampleMap(t *testing.T) (m api.NodeMap) {
	t.Helper()
	text, err := os.ReadFile("../../internal/nodemap/testdata/kubernetes.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func fakePod(t *testing.T, name, node, status string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	text := `{"metadata": {"name": "` + name + `", "namespace": "shop", "uid": "6b3f0c1e-0000-4000-8000-00000000000` + name[:1] + `", "generation": 1, "creationTimestamp": "2026-11-22T02:00:00Z"},
		"spec": {"nodeName": "` + node + `", "containers": [{"name": "web", "image": "shop/web:3", "resources": {"limits": {"memory": "64Mi"}}}]}, "status": {"phase": "Running", "containerStatuses": [` + status + `]}}`
	if err := json.Unmarshal([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	p.Status.ContainerStatuses[0].Name = "web"
	return p
}

// TestLocalOrCluster: the agent on this machine answers if it is one; else the
// cluster does, where a kubeconfig names one.
func TestLocalOrCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	file := fakeCluster(t).Kubeconfig(t)
	for _, tc := range []struct {
		name       string
		answer     http.Handler // on this machine; nil: nobody listens
		kubeconfig string
		want       api.Who
	}{
		{"an agent", clustertest.NewAgent(t, "laptop"), file, api.WhoAgent},
		{"nobody", nil, file, api.WhoAgents},
		{"another program", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"name": "my site"}`)) }), file, api.WhoAgents},
		{"a page", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`<html>`)) }), file, api.WhoAgents},
		{"nobody, and no cluster", nil, "", api.WhoAgent},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(tc.answer)
			if tc.answer == nil {
				srv.Close()
			} else {
				defer srv.Close()
			}
			one, err := api.NewClient(srv.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := localOrCluster(t.Context(), &server{Client: one}, cluster.Options{Kubeconfig: tc.kubeconfig})
			if err != nil || got.by().Who != tc.want {
				t.Errorf("%+v, %v; want %s", got, err, tc.want)
			}
		})
	}
}

// TestLocalOrCluster_Error: who thinks of this machine is told why a cluster fails.
func TestLocalOrCluster_Error(t *testing.T) {
	srv := httptest.NewServer(nil)
	srv.Close()
	one, err := api.NewClient(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	from, err := localOrCluster(t.Context(), &server{Client: one}, cluster.Options{Kubeconfig: clustertest.Start(t).Kubeconfig(t), Context: "away"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = from.newest(t.Context(), api.Query{}, 1)
	var said strings.Builder
	if err != nil {
		complain(&said, err)
	}
	for _, want := range []string{"context away", "connection refused", "kubectl cluster-info", "no agent answers at " + srv.URL} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q, want %q", said.String(), want)
		}
	}
}

// TestNodes: the maps of nodes, through the API server or of one agent.
func TestNodes(t *testing.T) {
	s := fakeCluster(t)
	a, err := openCluster(cluster.Options{Kubeconfig: s.Kubeconfig(t)})
	if err != nil {
		t.Fatal(err)
	}
	var from asked = a
	if got, err := from.nodes(t.Context(), "n1"); err != nil || len(got) != 1 || got[0].Node != "n1" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := from.nodes(t.Context(), "n3"); !errors.Is(err, cluster.ErrNoAgents) {
		t.Errorf("a node without: %v", err)
	}
	if got, err := from.nodes(t.Context(), ""); err != nil || len(got) != 1 {
		t.Errorf("all: %+v, %v", got, err)
	}
	s.Forbid("get pods/proxy")
	for _, node := range []string{"", "n1"} {
		var said strings.Builder
		if _, err := from.nodes(t.Context(), node); err != nil {
			complain(&said, err)
		}
		if !strings.Contains(said.String(), "hint: this user needs the right to get pods/proxy") {
			t.Errorf("without the right, of node %q: %q", node, said.String())
		}
	}
	srv := httptest.NewServer(clustertest.NewAgent(t, "n7"))
	defer srv.Close()
	one, err := api.NewClient(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	from = &server{Client: one}
	for _, node := range []string{"", "n7"} {
		if got, err := from.nodes(t.Context(), node); err != nil || len(got) != 1 || got[0].Node != "n7" {
			t.Errorf("of an agent alone, node %q: %+v, %v", node, got, err)
		}
	}
	if _, err := from.nodes(t.Context(), "n8"); err == nil || !strings.Contains(err.Error(), "is on node n7, not on n8") {
		t.Errorf("another node: %v", err)
	}
}

// TestMeanings_InACluster: names are of one namespace, ids of any.
func TestMeanings_InACluster(t *testing.T) {
	const id = "4c5dcde97b11"
	for _, tc := range []struct {
		target, flag string
		want         []api.Query
	}{
		{"web-1", "", []api.Query{{Namespace: "shop", Pod: "web-1"}, {Namespace: "shop", Container: "web-1"}, {Unit: "web-1"}}},
		{"pod/web-1", "pay", []api.Query{{Namespace: "pay", Pod: "web-1"}}},
		{"pod/web-1/main", "", []api.Query{{Namespace: "shop", Pod: "web-1", Container: "main"}}},
		{"pay/web-1", "", []api.Query{{Namespace: "pay", Pod: "web-1"}, {Namespace: "pay", Container: "web-1"}}},
		{"pay/web-1/main", "shop", []api.Query{{Namespace: "pay", Pod: "web-1", Container: "main"}}},
		{"unit/kubelet.service", "", []api.Query{{Unit: "kubelet.service"}}},
		{id, "", []api.Query{{Namespace: "shop", Pod: id}, {Namespace: "shop", Container: id}, {Unit: id}, {Container: id}}},
		{"container/" + id, "", []api.Query{{Namespace: "shop", Container: id}, {Container: id}}},
		{"a//b", "", nil},
	} {
		a := &agents{Cluster: &cluster.Cluster{Namespace: "shop"}, opt: cluster.Options{Namespace: tc.flag}}
		if tc.flag != "" {
			a.Namespace = tc.flag
		}
		got, _ := json.Marshal(a.meanings(tc.target))
		want, _ := json.Marshal(tc.want)
		if string(got) != string(want) {
			t.Errorf("%s:\n%s, want\n%s", tc.target, got, want)
		}
	}
}

// TestPlugin: kubectl starts a program by its name, and help says what was typed.
func TestPlugin(t *testing.T) {
	for name, want := range map[string]string{
		"coroner": "coroner why", "/usr/bin/coroner": "coroner why", "/home/u/bin/kubectl-coroner": "kubectl coroner why", "kubectl-coroner.exe": "kubectl coroner why",
	} {
		c, _, err := newRoot(name).Find([]string{"why"})
		if err != nil || !strings.HasPrefix(c.UseLine(), want+" ") {
			t.Errorf("%s: %q, %v", name, c.UseLine(), err)
		}
	}
}
