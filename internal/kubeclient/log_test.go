// SPDX-License-Identifier: Apache-2.0

package kubeclient

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// lines are those that were logged so far.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// logged routes client-go's log until the test ends.
func logged(t *testing.T, least slog.Level) *lines {
	t.Helper()
	l := &lines{}
	LogTo(slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: least})))
	t.Cleanup(klog.ClearLogger)
	return l
}

// TestLogTo: each line has the agent's form and a level of its own, however
// client-go writes it.
func TestLogTo(t *testing.T) {
	l := logged(t, slog.LevelDebug)
	klog.Background().WithName("r").WithValues("a", "b").Error(errors.New("refused"), "Failed to watch", "reflector", "pods")
	klog.Errorf("Expected a file, but got %q\n", "x")
	klog.Warning("Neither this nor that")
	klog.TODO().Info("watch ended")
	klog.TODO().V(2).Info("finer")
	klog.V(4).Info("finer")
	got := strings.Split(strings.TrimSpace(l.String()), "\n")
	for i, want := range [][]string{
		{"level=WARN", `msg="Failed to watch"`, "component=client-go", "logger=r", "a=b", "err=refused", "reflector=pods"},
		{"level=WARN", `msg="Expected a file, but got \"x\""`, "component=client-go"},
		{"level=DEBUG", `msg="Neither this nor that"`},
		{"level=DEBUG", `msg="watch ended"`},
	} {
		for _, w := range want {
			if i >= len(got) || !strings.Contains(got[i], w) {
				t.Errorf("line %d lacks %s: %q", i, w, got)
			}
		}
	}
	if len(got) != 4 {
		t.Errorf("%d lines, want 4: %q", len(got), got)
	}
}

// TestLogTo_Reflector: a watch that an API server refuses is a warning of the
// agent's, and no more at the level that an agent has.
func TestLogTo_Reflector(t *testing.T) {
	l := logged(t, slog.LevelInfo)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not today", http.StatusForbidden)
	}))
	defer srv.Close()
	c, err := Core(&rest.Config{Host: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	lw := &cache.ListWatch{
		ListFunc: func(metav1.ListOptions) (runtime.Object, error) {
			return &corev1.PodList{}, c.Get().Resource("pods").Do(ctx).Error()
		},
		WatchFunc: func(metav1.ListOptions) (watch.Interface, error) { return c.Get().Resource("pods").Watch(ctx) },
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		cache.NewReflectorWithOptions(lw, &corev1.Pod{}, cache.NewStore(cache.MetaNamespaceKeyFunc), cache.ReflectorOptions{Name: "pods of n1"}).RunWithContext(ctx)
	})
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(l.String(), "Failed to watch"); {
		if time.Now().After(deadline) {
			t.Errorf("nothing of it: %q", l)
			break
		}
	}
	cancel()
	wg.Wait()
	for line := range strings.Lines(l.String()) {
		if !strings.Contains(line, "level=WARN") || !strings.Contains(line, "component=client-go") {
			t.Errorf("line %q", line)
		}
	}
}
