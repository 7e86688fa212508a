// SPDX-License-Identifier: Apache-2.0

package kubeevents

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/coroner-dev/coroner/internal/death"
)

// api is an API server that a test plays: it keeps events.
type api struct {
	t *testing.T

	mu     sync.Mutex
	asked  []string // METHOD path
	events []*corev1.Event
	// fail answers the requests instead; it returns true where it did.
	fail func(w http.ResponseWriter, r *http.Request) bool
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.asked = append(a.asked, r.Method+" "+r.URL.Path)
	fail := a.fail
	a.mu.Unlock()
	if fail != nil && fail(w, r) {
		return
	}
	a.keep(w, r)
}

// keep does what was asked.
func (a *api) keep(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"), "/")
	if err != nil || len(parts) < 2 || parts[1] != "events" {
		a.t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		return
	}
	if r.Method == http.MethodPost {
		e := a.decode(body)
		if len(parts) != 2 || e.Namespace != parts[0] || e.Name == "" || e.ResourceVersion != "" {
			a.t.Errorf("POST %s of %+v", r.URL.Path, e.ObjectMeta)
		}
		if a.find(e.Namespace, e.Name) != nil {
			refuse(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
			return
		}
		a.events = append(a.events, e)
		answer(w, http.StatusCreated, e)
		return
	}
	if r.Method != http.MethodPatch || len(parts) != 3 || r.Header.Get("Content-Type") != "application/strategic-merge-patch+json" {
		a.t.Errorf("%s %s as %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
	}
	e := a.find(parts[0], parts[2])
	if e == nil {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	if err := json.Unmarshal(body, e); err != nil { // no field of it is a list
		a.t.Error(err)
	}
	answer(w, http.StatusOK, e)
}

func (a *api) find(namespace, name string) *corev1.Event {
	for _, e := range a.events {
		if e.Namespace == namespace && e.Name == name {
			return e
		}
	}
	return nil
}

func (a *api) decode(body []byte) *corev1.Event {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		a.t.Fatal(err)
	}
	o, _, err := serializer.NewCodecFactory(scheme).UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	e, ok := o.(*corev1.Event)
	if !ok {
		a.t.Fatalf("a %T was sent", o)
	}
	return e
}

func answer(w http.ResponseWriter, code int, e *corev1.Event) {
	c := *e
	c.TypeMeta = metav1.TypeMeta{Kind: "Event", APIVersion: "v1"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(c)
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, causes ...metav1.StatusCause) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason,
		Message: "the test says " + string(reason), Details: &metav1.StatusDetails{Causes: causes},
	})
}

// refusing answers each request so.
func refusing(code int, reason metav1.StatusReason, causes ...metav1.StatusCause) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		refuse(w, code, reason, causes...)
		return true
	}
}

func (a *api) failing(how func(w http.ResponseWriter, r *http.Request) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail = how
}

// kept are the events that are there, and how often something was asked.
func (a *api) kept() (events []corev1.Event, asked int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.events {
		events = append(events, *e)
	}
	return events, len(a.asked)
}

// RoundTrip answers in this process, so that time in a bubble goes on.
func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.ServeHTTP(rec, r)
	}()
	select {
	case <-done:
		return rec.Result(), nil
	case <-r.Context().Done():
		<-done
		return nil, r.Context().Err()
	}
}

// never answers nothing.
func never(_ http.ResponseWriter, r *http.Request) bool {
	<-r.Context().Done()
	return true
}

// log keeps what was logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.text.String()), "\n")
}

// rig is a sink with its API.
type rig struct {
	*Sink
	api  *api
	log  log
	stop func()
}

// telling runs a sink against a played API, in this process.
func telling(t *testing.T) *rig {
	r := &rig{api: &api{t: t}}
	r.start(t, &rest.Config{Host: "http://api", Transport: r.api})
	return r
}

func (r *rig) start(t *testing.T, c *rest.Config) {
	r.Sink = newSink(Options{Node: "n1", Logger: slog.New(slog.NewTextHandler(&r.log, nil))})
	r.config = c
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(r.stop)
}

const podUID = "6b3f0c1e-0000-4000-8000-000000000001"

// died is a death of the container main of the pod shop/web-1.
func died(id string, cause death.Cause) death.Death {
	return death.Death{
		ID: id, Revision: 1, Node: "n1", Subject: death.SubjectContainer, Cause: cause, Summary: "Container main died: " + id + ".",
		Container: &death.Container{ID: "4c5d", Name: "main", Pod: &death.Pod{Namespace: "shop", Name: "web-1", UID: podUID}},
	}
}

// amended is d as later evidence has it.
func amended(d death.Death, cause death.Cause, sentence string) death.Death {
	d.Revision++
	d.Cause, d.Summary = cause, sentence
	return d
}
