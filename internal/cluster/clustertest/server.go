// SPDX-License-Identifier: Apache-2.0

// Package clustertest plays a Kubernetes API server for tests: pods, events, and
// the proxy to pods, where real handlers of coroner's agent answer.
package clustertest

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// token is what the kubeconfig's user has to show.
const token = "token-of-the-test"

// Server is an API server.
type Server struct {
	url       string
	authority []byte

	mu     sync.Mutex
	pods   []*corev1.Pod
	events []corev1.Event
	agents map[string]http.Handler // NAMESPACE/POD:PORT
	forbid map[string]bool
	asked  []string
	broken http.HandlerFunc

	// Cut ends all connections.
	Cut func()
}

// Start serves until the test ends.
func Start(t testing.TB) *Server {
	s := &Server{agents: map[string]http.Handler{}, forbid: map[string]bool{}}
	srv := httptest.NewUnstartedServer(s)
	srv.EnableHTTP2 = true // as API servers have it; one connection has all streams
	srv.StartTLS()
	s.Cut = srv.CloseClientConnections
	t.Cleanup(func() {
		s.Cut()
		srv.Close()
	})
	s.url, s.authority = srv.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	return s
}

// Add puts pods there.
func (s *Server) Add(pods ...*corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods = append(s.pods, pods...)
}

// Remove takes a pod away.
func (s *Server) Remove(namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods = slices.DeleteFunc(s.pods, func(p *corev1.Pod) bool { return p.Namespace == namespace && p.Name == name })
	delete(s.agents, namespace+"/"+name+":3001")
}

// Note puts events there.
func (s *Server) Note(events ...corev1.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, events...)
}

// AddAgent puts an agent's pod on a node; a nil h does not answer.
func (s *Server) AddAgent(namespace, name, node string, h http.Handler) {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.Labels = namespace, name, map[string]string{"app.kubernetes.io/name": "coroner"}
	p.Spec.NodeName, p.Status.Phase = node, corev1.PodRunning
	s.Add(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agents[namespace+"/"+name+":3001"] = h
}

// Forbid takes rights away, each as "get pods/proxy"; that to list all
// namespaces' at once as "list pods -A".
func (s *Server) Forbid(rights ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rights {
		s.forbid[r] = true
	}
}

// Break has all requests but those for the proxy answered so.
func (s *Server) Break(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = h
}

// Asked is what was asked so far, each as a path with its parameters.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// Kubeconfig writes one whose contexts are test, in namespace shop, and away, of
// a server that does not answer.
func (s *Server) Kubeconfig(t testing.TB) string {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
clusters:
- {name: test, cluster: {server: "%s", certificate-authority-data: %s}}
- {name: away, cluster: {server: "https://127.0.0.1:1"}}
users:
- {name: dev, user: {token: %s}}
contexts:
- {name: test, context: {cluster: test, user: dev, namespace: shop}}
- {name: away, context: {cluster: away, user: dev}}
- {name: stranger, context: {cluster: test, user: nobody}}
`, s.url, base64.StdEncoding.EncodeToString(s.authority), token)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// ServeHTTP answers as an API server does.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.URL.String())
	broken := s.broken
	s.mu.Unlock()
	if broken != nil && !strings.Contains(r.URL.Path, "/proxy/") {
		broken(w, r)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+token {
		fail(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized")
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/api/v1/")
	parts := strings.SplitN(rest, "/", 6)
	switch {
	case !ok:
		http.NotFound(w, r)
	case rest == "namespaces":
		s.namespaces(w)
	case rest == "pods":
		s.list(w, r, "", "pods")
	case len(parts) == 3 && parts[0] == "namespaces":
		s.list(w, r, parts[1], parts[2])
	case len(parts) == 4 && parts[2] == "pods":
		s.get(w, parts[1], parts[3])
	case len(parts) == 6 && parts[4] == "proxy":
		s.proxy(w, r, parts[1], parts[3])
	default:
		http.NotFound(w, r)
	}
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message, //nolint:gosec // an HTTP status
	})
}

// may answers where a right is missing.
func (s *Server) may(w http.ResponseWriter, verb, resource, namespace string) bool {
	scope := `in the namespace "` + namespace + `"`
	right := verb + " " + resource
	s.mu.Lock()
	no := s.forbid[right]
	if namespace == "" {
		scope, no = "at the cluster scope", no || s.forbid[right+" -A"]
	}
	s.mu.Unlock()
	if no {
		fail(w, http.StatusForbidden, metav1.StatusReasonForbidden, fmt.Sprintf(`%s is forbidden: User "dev" cannot %s resource "%s" in API group "" %s`, resource, verb, resource, scope))
	}
	return !no
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (s *Server) namespaces(w http.ResponseWriter) {
	l := corev1.NamespaceList{TypeMeta: metav1.TypeMeta{Kind: "NamespaceList", APIVersion: "v1"}}
	for _, name := range []string{"default", "shop", "shop-test"} {
		n := corev1.Namespace{}
		n.Name = name
		l.Items = append(l.Items, n)
	}
	answer(w, l)
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, namespace, resource string) {
	if !s.may(w, "list", resource, namespace) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if resource == "events" {
		l := corev1.EventList{TypeMeta: metav1.TypeMeta{Kind: "EventList", APIVersion: "v1"}}
		for _, e := range s.events {
			if r.URL.Query().Get("fieldSelector") == "involvedObject.uid="+string(e.InvolvedObject.UID) {
				l.Items = append(l.Items, e)
			}
		}
		answer(w, l)
		return
	}
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	l := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
	for _, p := range s.pods {
		if (namespace == "" || p.Namespace == namespace) && selector.Matches(labels.Set(p.Labels)) {
			l.Items = append(l.Items, *p)
		}
	}
	answer(w, l)
}

func (s *Server) get(w http.ResponseWriter, namespace, name string) {
	if !s.may(w, "get", "pods", namespace) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pods {
		if p.Namespace == namespace && p.Name == name {
			q := *p
			q.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
			answer(w, q)
			return
		}
	}
	fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("pods %q not found", name))
}

// proxy passes a request on as an API server does: without who asked.
func (s *Server) proxy(w http.ResponseWriter, r *http.Request, namespace, pod string) {
	if !s.may(w, "get", "pods/proxy", namespace) {
		return
	}
	s.mu.Lock()
	h, there := s.agents[namespace+"/"+pod]
	s.mu.Unlock()
	switch {
	case !there:
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf("pods %q not found", pod))
	case h == nil:
		fail(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "error trying to reach service: dial tcp 10.0.0.7:3001: connect: connection refused")
	default:
		r.Header.Del("Authorization")
		http.StripPrefix("/api/v1/namespaces/"+namespace+"/pods/"+pod+"/proxy", h).ServeHTTP(w, r)
	}
}
