// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/coroner-dev/coroner/internal/signal"
)

// ofItsOwn is a certificate as a kubelet signs it for itself: of its node's name.
func ofItsOwn(t *testing.T, node string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{node}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestKubelet_Address: a kubelet that is asked at its node's address has to be
// the node's by its certificate, which has no address in it, and gets the token
// only then.
func TestKubelet_Address(t *testing.T) {
	for _, of := range []string{"n1", "n2"} {
		tokens := make(chan string, 10)
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tokens <- r.Header.Get("Authorization")
			_ = json.NewEncoder(w).Encode(corev1.PodList{})
		}))
		cert := ofItsOwn(t, of)
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		srv.StartTLS()
		var asked string
		as := &rest.Config{Host: "https://api.example", BearerToken: "secret"}
		as.CAData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
		as.ServerName = "api.example"
		as.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
			asked = address
			return (&net.Dialer{}).DialContext(ctx, "tcp", srv.Listener.Addr().String())
		}
		k, err := newKubelet(&Options{Node: "n1", NodeAddress: "fd00::7"}, as)
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.list(t.Context(), reader{})
		k.http.CloseIdleConnections()
		srv.Close()
		switch close(tokens); {
		case asked != "[fd00::7]:10250":
			t.Errorf("asked at %s", asked)
		case of == "n1" && (err != nil || <-tokens != "Bearer secret"):
			t.Errorf("the node's own kubelet: %v", err)
		case of != "n1" && (err == nil || !strings.Contains(err.Error(), "n1") || <-tokens != ""):
			t.Errorf("another node's kubelet: %v", err)
		}
	}
}

// TestKubelet_Memory: who may make pods can make the kubelet's answer as large as
// the API lets pods be; no more than one of them is held at once.
func TestKubelet_Memory(t *testing.T) {
	p := usual(1)
	for len(p.Spec.Containers[0].Env) < 80_000 {
		p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{Name: "A"})
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	const pods = 24
	var before, most int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[`)
		for i := range pods {
			if i > 0 {
				_, _ = io.WriteString(w, ",")
			}
			_, _ = w.Write(text)
			_ = http.NewResponseController(w).Flush()
			most = max(most, heap())
		}
		_, _ = io.WriteString(w, "]}")
	}))
	defer srv.Close()
	k, err := newKubelet(&Options{Kubelet: srv.URL, Node: "n1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	k.http.Timeout = 0 // each look at the heap collects it
	before = heap()
	l, err := k.list(t.Context(), reader{})
	if err != nil || len(l) != pods || l[0].seen.Pod.Name != p.Name {
		t.Fatalf("%d pods: %v", len(l), err)
	}
	t.Logf("%d pods of %d KiB took %d KiB at most", pods, len(text)>>10, (most-before)>>10)
	if most-before > 24<<20 {
		t.Errorf("%d pods of %d KiB took %d MiB", pods, len(text)>>10, (most-before)>>20)
	}
}

// TestKubelet_TheAPIIsBack: what the kubelet said is not taken where the API has
// answered meanwhile: nothing would tell that a pod of it has gone.
func TestKubelet_TheAPIIsBack(t *testing.T) {
	var f *follower
	var seen int
	f = New(Options{Node: "n1"}).newFollower(func(s signal.Signal) {
		switch b := s.Body.(type) {
		case signal.SourceState:
			if b.Mode == modeKubelet {
				f.standing.answered(nil)
				if err := f.Replace(nil, ""); err != nil {
					t.Error(err)
				}
			}
		case signal.PodSeen:
			seen++
		}
	})
	f.answered(errNoAnswer)
	f.kubeletSaid([]*reading{f.reader().read(usual(1))}, nil)
	if seen != 0 {
		t.Errorf("%d pods told that the API has no more", seen)
	}
}
