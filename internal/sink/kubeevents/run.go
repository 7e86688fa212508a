// SPDX-License-Identifier: Apache-2.0

package kubeevents

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/coroner-dev/coroner/internal/kubeclient"
)

const (
	// askLimit is how long the API may take for one event.
	askLimit = 10 * time.Second
	// tryFirst is how long an API that is away is left alone, doubled each time
	// up to tryLast.
	tryFirst = time.Second
	tryLast  = time.Minute
	// startUp is how long what is forbidden is tried again: an API server that
	// starts knows nobody's rights.
	startUp = 30 * time.Second
	// lifetime is how long an event is news: the API keeps it as long.
	lifetime = time.Hour
	// endLimit is how long the last events may take when the agent ends.
	endLimit = 2 * time.Second
)

// Run tells the API what waits until ctx ends, and then tries once what is
// left.
func (s *Sink) Run(ctx context.Context) {
	w := newWriter()
	var left *note
	for ctx.Err() == nil {
		n, wait := s.next(time.Now(), false)
		if n != nil {
			if !s.write(ctx, w, n) {
				left = n
			}
			continue
		}
		var due <-chan time.Time
		if wait > 0 {
			due = time.After(wait)
		}
		select {
		case <-s.wake:
		case <-due:
		case <-ctx.Done():
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	for {
		if left != nil {
			left.last = true
			s.write(ctx, w, left)
		}
		if left, _ = s.next(time.Now(), true); left == nil {
			return
		}
	}
}

// write tells one death, however long the API is away; the last ones are tried
// once. It returns false where ctx ended before that was done.
func (s *Sink) write(ctx context.Context, w *writer, n *note) bool {
	for ; len(n.events) > 0; n.events, n.message = n.events[1:], nil {
		if n.message == nil {
			n.message = w.correlate(n.events[0], time.Now())
		}
		if n.message == nil {
			n.missed = true
			continue
		}
		ended, err := s.deliver(ctx, w, n)
		if ended {
			return false
		}
		w.barred = err != nil && (w.barred || kindOf(err) == forbidden)
		n.missed = n.missed || err != nil
	}
	if n.missed {
		s.mu.Lock()
		s.dropped++
		s.mu.Unlock()
	}
	return true
}

// deliver tries until the API takes the event, or will not. Where ended is true,
// ctx was before that.
func (s *Sink) deliver(ctx context.Context, w *writer, n *note) (ended bool, err error) {
	began := time.Now()
	again := func(err error) bool {
		return passes(err) || !w.barred && kindOf(err) == forbidden && time.Since(began) < startUp
	}
	err = s.try(ctx, w, n.message)
	for wait := tryFirst; err != nil && again(err) && !n.last && time.Since(n.due) < lifetime; wait = min(2*wait, tryLast) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return true, err
		}
		err = s.try(ctx, w, n.message)
	}
	return false, err
}

// try asks the API once.
func (s *Sink) try(ctx context.Context, w *writer, m *message) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	err := s.connect(w)
	if err == nil {
		err = w.write(ctx, m)
	}
	s.answered(err)
	return err
}

// connect makes a client, where there is none yet.
func (s *Sink) connect(w *writer) error {
	if w.rest != nil {
		return nil
	}
	cfg := s.config
	if cfg == nil {
		var err error
		if cfg, err = kubeclient.Config(s.opt.Kubeconfig); err != nil {
			return err
		}
	}
	c, err := kubeclient.Core(cfg)
	w.rest = c
	return err
}

// answered notes what the API said, and logs it where that is news.
func (s *Sink) answered(err error) {
	trouble := ""
	if err != nil {
		trouble = kindOf(err)
	}
	s.mu.Lock()
	was := s.trouble
	if s.trouble = trouble; trouble == gone || trouble == refused {
		s.trouble = "" // the next may be taken; this one is counted
	}
	if err != nil {
		s.errs++
	}
	said := s.said[trouble]
	if trouble == forbidden || trouble == refused {
		s.said[trouble] = true // it may be so of one event and not of the next
	}
	s.mu.Unlock()
	switch {
	case trouble == gone:
		s.log.Debug("the namespace of an event goes, or is gone", "err", bounded(err.Error(), maxMessage))
	case trouble == was || said:
	case trouble == "":
		s.log.Info("events are taken")
	case trouble == forbidden:
		s.log.Warn("the service account may not write events; grant events: create, patch, or switch off --sink.kubeevents", "err", bounded(err.Error(), maxMessage))
	default:
		s.log.Warn("events are not taken", "err", bounded(err.Error(), maxMessage))
	}
}

// The kinds of trouble.
const (
	forbidden = "forbidden"
	gone      = "gone"    // the event's namespace
	refused   = "refused" // this event, for what it says
	away      = "away"
)

func kindOf(err error) string {
	switch {
	case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return gone
	case apierrors.IsForbidden(err):
		return forbidden
	case passes(err):
		return away
	}
	return refused
}

// passes tells whether the same event may be taken later: the API is away, has
// too much to do, or knows the agent no more until its token is renewed. What
// it refuses for what it says must not keep others waiting.
func passes(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	switch code := int(status.Status().Code); code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	default:
		return code >= http.StatusInternalServerError || code == 0
	}
}

func said(what string, e *corev1.Event, err error) error {
	return fmt.Errorf("%s event in namespace %s: %w", what, e.Namespace, err)
}
