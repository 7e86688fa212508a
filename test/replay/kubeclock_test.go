// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/source/kube"
)

// playedAPI is an API server whose clock is ahead: it tells whoever watches pods
// of this one, and knows nothing else.
func playedAPI(t *testing.T, ahead time.Duration, p *corev1.Pod) (kubeconfig string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		if r.URL.Path != "/api/v1/pods" || r.URL.Query().Get("watch") == "" {
			http.NotFound(w, r)
			return
		}
		line := func(kind string, o any) {
			_ = json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": o})
			w.(http.Flusher).Flush()
		}
		line("ADDED", p)
		line("BOOKMARK", map[string]any{"kind": "Pod", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "1", "annotations": map[string]string{"k8s.io/initial-events-end": "true"}}})
		<-r.Context().Done()
	}))
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n", srv.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// TestKubernetes_Clock: a control plane whose clock is minutes off makes no other
// cause of an end: who asked for a deletion is blamed for what came after it, and
// for nothing else.
func TestKubernetes_Clock(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ended time.Duration // after the deletion was asked for
		code  int32
		cause death.Cause
	}{
		{"ended as it was told", 2 * time.Second, 143, death.Stopped},
		{"failed a minute before", -time.Minute, 3, death.Error},
	} {
		for _, ahead := range []time.Duration{-5 * time.Minute, 0, 5 * time.Minute} {
			t.Run(fmt.Sprintf("%s, clock off by %s", tc.name, ahead), func(t *testing.T) {
				t.Parallel()
				asked, grace := time.Now().Add(-2*time.Minute), int64(30)
				over := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
					ContainerID: "containerd://4c5dcde97b11e1e9c5584806cbb5765c4255115b7d39707ba58f364372fddce3", ExitCode: tc.code, Reason: "Error",
					StartedAt: metav1.NewTime(asked.Add(-time.Hour)), FinishedAt: metav1.NewTime(asked.Add(tc.ended)),
				}}
				p := &corev1.Pod{
					TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
					ObjectMeta: metav1.ObjectMeta{
						Name: "web-1", Namespace: "shop", UID: "6b3f0c1e-0000-4000-8000-000000000001", ResourceVersion: "1",
						DeletionTimestamp: &metav1.Time{Time: asked.Add(ahead + 30*time.Second)}, DeletionGracePeriodSeconds: &grace,
					},
					Spec:   corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "shop/web:3"}}},
					Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "main", Image: "shop/web:3", ContainerID: over.Terminated.ContainerID, State: over}}},
				}
				source := kube.New(kube.Options{Node: "n1", Kubeconfig: playedAPI(t, ahead, p), Since: asked.Add(-time.Hour)})
				heard, ctx := make(chan signal.Signal, 100), t.Context()
				ctx, cancel := context.WithCancel(ctx)
				done := make(chan error, 1)
				go func() { done <- source.Run(ctx, func(s signal.Signal) { heard <- s }) }()
				defer func() { cancel(); <-done }()
				q, late := inquest.New(inquest.Options{}), time.After(30*time.Second)
				for got := map[string]bool{}; !got["end"] || !got["deletion"]; {
					select {
					case s := <-heard:
						if p, ok := s.Body.(signal.PodSeen); ok && p.Deletion != nil {
							got["deletion"] = true
						}
						if _, ok := s.Body.(signal.ContainerExit); ok {
							got["end"] = true
						}
						q.Feed(s)
					case <-late:
						t.Fatalf("told only of %v", got)
					}
				}
				ds := slices.Concat(q.Take(), q.Close())
				if len(ds) == 0 || ds[len(ds)-1].Cause != tc.cause {
					t.Errorf("got %+v\nwant %s", ds, tc.cause)
				}
			})
		}
	}
}
