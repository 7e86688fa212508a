// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/api"
)

// sampleNode is the map that package nodemap's own test makes.
func sampleNode(t *testing.T) api.NodeMap {
	t.Helper()
	body, err := os.ReadFile("../nodemap/testdata/kubernetes.json")
	if err != nil {
		t.Fatal(err)
	}
	var m api.NodeMap
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNodeJSON(t *testing.T) {
	var fails error
	s := newSite(t, func(o *Options) {
		o.Node = func(context.Context) (api.NodeMap, error) { return sampleNode(t), fails }
	})
	var m api.NodeMap
	w := s.get(api.PathNode)
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil || w.Code != http.StatusOK || m.Memory["unaccounted"].Bytes == 0 {
		t.Errorf("%d, %v: %s", w.Code, err, w.Body)
	}
	fails = errors.New("open /x/meminfo: gone\x1b")
	if w := s.get(api.PathNode); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), `open /x/meminfo: gone\\x1b`) {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
	if got := newSite(t, nil).get(api.PathNode).Code; got != http.StatusNotFound {
		t.Errorf("where there is no node: %d", got)
	}
}

// TestNodePage shows all of the map, and nothing of a hostile name as it is.
func TestNodePage(t *testing.T) {
	m := sampleNode(t)
	var fails error
	s := newSite(t, func(o *Options) { o.Node = func(context.Context) (api.NodeMap, error) { return m, fails } })
	body := s.get("/node").Body.String()
	for _, want := range []string{
		"Memory of worker-3", "unaccounted", "kube-reserved", "backup.service", `class="n grew">&#43;3.0 GiB`, "shop/cache-0", "critical: not evicted",
		"OOM-killed first, if the limit of all pods were reached", "kubectl top node", "105.7 %", "It is over 100 % because", "evictionSoftGracePeriod 1m30s", "memory.available &lt; 100Mi",
		"Overcommit: the limits of 4 containers", `<rect class="kernel"`, "growth is over the last 5 min",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in the page:\n%s", want, body)
		}
	}
	if front := s.get("/").Body.String(); !strings.Contains(front, `<a class="node" href="/node"`) {
		t.Error("no link to it from the other pages")
	}
	m.Groups[0].Name, m.OOMOrder[0].Comm, m.Notes, m.Pods[0].Name = hostile, hostile, []string{hostile}, hostile
	body = s.get("/node").Body.String()
	for _, bad := range []string{"<script>alert", " style=", "onerror=", "ZgotmplZ", "\x1b", "\u202e"} {
		if strings.Contains(body, bad) {
			t.Errorf("%q in the page", bad)
		}
	}
	m = api.NodeMap{}
	if w := s.get("/node"); w.Code != http.StatusOK {
		t.Errorf("an empty map: %d %s", w.Code, w.Body)
	}
	fails = errors.New("gone")
	if w := s.get("/node"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "gone") {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
	none := newSite(t, nil)
	if w := none.get("/node"); w.Code != http.StatusNotFound || strings.Contains(none.get("/").Body.String(), `href="/node"`) {
		t.Errorf("where there is no node: %d, or a link to it", w.Code)
	}
}
