// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/engines"
	"github.com/coroner-dev/coroner/internal/kubeclient"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Run follows the node and its pods until ctx ends. An API that is away, or
// forbids, is no end: it says so, tries again with backoff, and asks the kubelet
// meanwhile.
func (s *Source) Run(ctx context.Context, emit func(signal.Signal)) error {
	f := s.newFollower(emit)
	cfg, err := s.connect()
	absent := errors.Is(err, kubeclient.ErrAbsent)
	if absent && s.opt.Kubelet == "" {
		f.tell(time.Now().UTC(), false, signal.SourceState{Absent: true, Reason: err.Error()})
		<-ctx.Done()
		return nil
	}
	if err != nil && !absent {
		return err
	}
	k, err := newKubelet(&s.opt, cfg)
	if err != nil {
		return err
	}
	if absent {
		f.answered(kubeclient.ErrAbsent)
		k.standIn(ctx, f)
		return nil
	}
	c, err := newClient(cfg, &f.clock)
	if err != nil {
		return err
	}
	s.asks.Store(c)
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { k.standIn(ctx, f) })
	work.Go(func() { s.reflectNode(ctx, c, f) })
	work.Go(func() { f.askOwners(ctx, c) })
	s.reflectPods(ctx, c, f)
	return nil
}

// reflectPods follows the node's pods.
func (s *Source) reflectPods(ctx context.Context, c *client, f *follower) {
	var watches sync.WaitGroup
	defer watches.Wait() // what they say comes before the source's end
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := c.list(ctx, s.opt.Node, o)
			f.answered(err)
			if err != nil {
				return nil, err
			}
			return list, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := c.watchPods(ctx, s.opt.Node, o)
			if err != nil {
				f.answered(err)
				return nil, err
			}
			return hear(w, &watches, f.answered), nil
		},
	}
	cache.NewReflectorWithOptions(lw, &corev1.Pod{}, f, cache.ReflectorOptions{Name: "pods of " + s.opt.Node}).RunWithContext(ctx)
}

// forbiddenFirst is how long it is not asked again for what the service account
// may not see, doubled each time up to forbiddenFor: an API server that starts
// knows nobody's rights.
const (
	forbiddenFirst = 5 * time.Second
	forbiddenFor   = 5 * time.Minute
)

// reflectNode follows the node itself. The right to it can be missing: pods are
// followed all the same.
func (s *Source) reflectNode(ctx context.Context, c *client, f *follower) {
	var again <-chan time.Time // when it may be asked again; nil: now
	wait := forbiddenFirst
	n := &nodeFollower{f: f, name: s.opt.Node}
	ask := func(ctx context.Context, do func() error) error {
		if again != nil { // the reflector would ask each half minute, and complain
			select {
			case <-again:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err := do()
		if again = nil; apierrors.IsForbidden(err) {
			again = time.After(wait)
			wait = min(2*wait, forbiddenFor)
		} else if err == nil {
			wait = forbiddenFirst
		}
		why := n.lacks()
		if err != nil {
			why = "the node's conditions and taints are not known: " + err.Error()
		}
		f.missing(lesserNode, why)
		return err
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			var list *corev1.NodeList
			err := ask(ctx, func() (err error) { list, err = c.listNode(ctx, s.opt.Node, o); return err })
			if err != nil {
				return nil, err
			}
			return list, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (w watch.Interface, err error) {
			err = ask(ctx, func() (err error) { w, err = c.watchNode(ctx, s.opt.Node, o); return err })
			return w, err
		},
	}
	cache.NewReflectorWithOptions(lw, &corev1.Node{}, n, cache.ReflectorOptions{Name: "node " + s.opt.Node}).RunWithContext(ctx)
}

// follower takes what the reflector and the kubelet bring, and keeps nothing of
// the objects.
type follower struct {
	labels   engines.Selection
	clock    clock
	standing standing
	jobs     chan job // of which it is to be asked whose they are

	mu    sync.Mutex // of the table, which the reflector, the kubelet and owners change
	table *table
	asked map[string]bool // uids of Jobs

	telling sync.Mutex
	emit    func(signal.Signal)
	state   *signal.SourceState
}

func (s *Source) newFollower(emit func(signal.Signal)) *follower {
	f := &follower{emit: emit, labels: engines.SelectionOf(s.opt.Labels), jobs: make(chan job, maxJobsAsked), asked: map[string]bool{}}
	f.clock.changed = func() {
		f.standing.setClock(f.clock.by())
		f.say()
	}
	f.table = newTable(time.Now().UTC(), s.opt.Since)
	f.table.tell = f.tell
	f.table.lost = func(n int, why string) {
		f.tell(time.Now().UTC(), false, signal.Lost{Count: uint64(n), Other: true, Why: why}) //nolint:gosec // never negative
	}
	return f
}

func (f *follower) tell(at time.Time, recovered bool, b signal.Body) {
	f.telling.Lock()
	defer f.telling.Unlock()
	f.emit(signal.Signal{Time: at, Observed: time.Now().UTC(), Source: death.SourceKube, Recovered: recovered, Body: b})
}

// answered says how the API is doing, where that is news.
func (f *follower) answered(err error) {
	f.standing.answered(err)
	f.say()
}

// missing says what cannot be told beside pods, where that is news.
func (f *follower) missing(what, why string) {
	f.standing.miss(what, why)
	f.say()
}

// say says how the source is doing, where that is news. Before the API or the
// kubelet has answered nothing is.
func (f *follower) say() {
	f.telling.Lock()
	defer f.telling.Unlock()
	st, known := f.standing.state()
	if !known || f.state != nil && *f.state == st {
		return
	}
	f.state = &st
	now := time.Now().UTC()
	f.emit(signal.Signal{Time: now, Observed: now, Source: death.SourceKube, Body: st})
}

// reader reads objects with what is known of the API's clock.
func (f *follower) reader() reader { return reader{labels: f.labels, ahead: f.clock.by()} }

// Transformer has pods read as they come: a list of whole ones is never held.
func (f *follower) Transformer() cache.TransformFunc {
	return func(o any) (any, error) { return f.read(o) }
}

func (f *follower) read(o any) (*reading, error) {
	switch o := o.(type) {
	case *reading:
		return o, nil
	case *corev1.Pod:
		return f.reader().read(o), nil
	}
	return nil, fmt.Errorf("a %T among the pods", o)
}

// Add takes a pod that is new.
func (f *follower) Add(o any) error { return f.Update(o) }

// Update takes a pod that changed.
func (f *follower) Update(o any) error {
	d, err := f.read(o)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.see(d)
	return nil
}

// see takes a pod, with the table locked.
func (f *follower) see(d *reading) {
	f.table.see(d, time.Now().UTC())
	if j := d.job; j != nil {
		f.askOwner(*j)
	}
}

// Delete takes a pod that the API has no more, as it was last.
func (f *follower) Delete(o any) error {
	d, err := f.read(o)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.see(d)
	f.table.gone(f.table.uidOf(d), time.Now().UTC())
	return nil
}

// Replace takes all pods there are.
func (f *follower) Replace(all []any, _ string) error {
	pods := make([]*reading, 0, len(all))
	for _, o := range all {
		d, err := f.read(o)
		if err != nil {
			return err
		}
		pods = append(pods, d)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.table.keep(pods, time.Now().UTC())
	for _, d := range pods {
		f.see(d)
	}
	return nil
}

// Resync does nothing: nothing is kept that could be stale.
func (f *follower) Resync() error { return nil }

// kubeletSaid takes the kubelet's pods, in place of the API's: what the API knew
// and the kubelet leaves out stays.
func (f *follower) kubeletSaid(list []*reading, err error) {
	if !f.standing.byKubelet(err) {
		return
	}
	f.say()
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.standing.answers() {
		return // its own pods may be taken already, and no word of these would come
	}
	for _, d := range list {
		f.see(d)
	}
}
