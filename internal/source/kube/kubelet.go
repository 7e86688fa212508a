// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/coroner-dev/coroner/internal/engines"
)

// How often the kubelet is asked while the API is away, how long the API may
// take at the start, and how much is taken of an answer and of one pod in it: an
// object of the API has 1.5 MiB at most, which JSON can make several times that.
const (
	kubeletEvery  = 10 * time.Second
	kubeletFirst  = 2 * time.Second
	maxKubeletSay = 256 << 20
	maxKubeletPod = 8 << 20
)

// kubeletPort is where the kubelet answers whoever has the right to nodes/proxy,
// or from Kubernetes 1.33 on to nodes/pods.
const kubeletPort = "10250"

// kubelet asks the node's own kubelet for the pods that it runs. Their statuses
// are those that the API last had, but for static pods (GetPods of
// pkg/kubelet/kubelet_pods.go, 1.34): it gives names, and no ends.
type kubelet struct {
	pods string
	http *http.Client
}

// newKubelet is the kubelet at a URL, or of a node; as whom it is asked, cfg
// says: nil, or a URL without TLS: as nobody. What it is must be proven, by the
// authority KubeletCA or that of the cluster: else anybody could have the token.
func newKubelet(o *Options, cfg *rest.Config) (*kubelet, error) {
	at, name := o.Kubelet, "" // the name of its certificate; empty: that of the URL
	if at == "" {
		at = "https://" + net.JoinHostPort(cmp.Or(o.NodeAddress, o.Node), kubeletPort)
		if o.NodeAddress != "" {
			name = o.Node // one that signs its own has no address in it
		}
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("kubelet %q: want http://HOST:PORT or https://HOST:PORT", at)
	}
	own := &rest.Config{}
	if cfg != nil && u.Scheme == "https" {
		own = rest.CopyConfig(cfg)
	}
	own.ServerName = name
	own.Host, own.Timeout, own.Proxy = at, askLimit, func(*http.Request) (*url.URL, error) { return nil, nil }
	own.WrapTransport = nil
	if o.KubeletCA != "" {
		own.CAFile, own.CAData = o.KubeletCA, nil
	}
	c, err := rest.HTTPClientFor(own)
	if err != nil {
		return nil, fmt.Errorf("client of the kubelet at %s: %w", at, err)
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &kubelet{pods: strings.TrimSuffix(at, "/") + "/pods", http: c}, nil
}

// list asks for the pods.
func (k *kubelet) list(ctx context.Context, rd reader) ([]*reading, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.pods, nil)
	if err != nil {
		return nil, fmt.Errorf("pods of the kubelet: %w", err)
	}
	w, err := k.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("pods of the kubelet: %w", err)
	}
	defer func() { _ = w.Body.Close() }()
	switch w.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		text, _ := io.ReadAll(io.LimitReader(w.Body, engines.MaxName))
		return nil, fmt.Errorf("pods of the kubelet at %s: %s (the right is get of nodes/proxy, or of nodes/pods): %s", k.pods, w.Status, strings.TrimSpace(string(text)))
	default:
		return nil, fmt.Errorf("pods of the kubelet at %s: %s", k.pods, w.Status)
	}
	all, err := readPods(io.LimitReader(w.Body, maxKubeletSay), rd)
	if err != nil {
		return nil, fmt.Errorf("pods of the kubelet at %s: %w", k.pods, err)
	}
	return all, nil
}

var (
	errNoPods   = errors.New("no list of pods")
	errLargePod = fmt.Errorf("a pod, or something else, of more than %d MiB", maxKubeletPod>>20)
)

// readPods reads a PodList pod by pod: a list of whole ones takes many times the
// memory of what is kept of them.
func readPods(r io.Reader, rd reader) (out []*reading, err error) {
	each := &perValue{Reader: r}
	d := json.NewDecoder(each)
	next := func() (json.Token, error) {
		each.taken = 0
		return d.Token()
	}
	if t, err := next(); err != nil || t != json.Delim('{') {
		return nil, cmp.Or(err, errNoPods)
	}
	for d.More() {
		name, err := next()
		if err != nil {
			return nil, err
		}
		each.taken = 0
		if name != "items" {
			var other json.RawMessage
			if err := d.Decode(&other); err != nil {
				return nil, err
			}
			continue
		}
		if t, err := next(); err != nil || t != json.Delim('[') && t != nil {
			return nil, cmp.Or(err, errNoPods)
		} else if t == nil {
			continue
		}
		for d.More() {
			if len(out) == maxPods {
				return nil, fmt.Errorf("more than %d pods", maxPods)
			}
			var p corev1.Pod
			each.taken = 0
			if err := d.Decode(&p); err != nil {
				return nil, err
			}
			out = append(out, rd.read(&p))
		}
		if _, err := next(); err != nil {
			return nil, err
		}
	}
	_, err = next()
	return out, err
}

// perValue bounds what is read for one value.
type perValue struct {
	io.Reader
	taken int
}

func (v *perValue) Read(p []byte) (int, error) {
	n, err := v.Reader.Read(p)
	if v.taken += n; v.taken > maxKubeletPod {
		return 0, errLargePod
	}
	return n, err
}

// standIn asks the kubelet while the API does not answer, until ctx ends.
func (k *kubelet) standIn(ctx context.Context, f *follower) {
	wait := kubeletFirst
	for {
		asked, away, changes := f.standing.away()
		var due <-chan time.Time
		if away || !asked {
			due = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-changes:
			wait = kubeletFirst
			continue
		case <-due:
		}
		list, err := k.list(ctx, f.reader())
		if ctx.Err() != nil {
			return
		}
		f.kubeletSaid(list, err)
		wait = kubeletEvery
	}
}
