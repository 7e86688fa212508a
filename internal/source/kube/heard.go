// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
)

// quietFor is how long a watch must stay open that says nothing, to be an answer:
// where nothing happens it has nothing to say.
const quietFor = 2 * time.Second

var errCutOff = errors.New("watch pods: the answer ended before it said anything")

// heard is a watch of which it is told whether it is an answer: half a body, and
// what is none of the API's, begin as well as any other.
type heard struct {
	from    watch.Interface
	out     chan watch.Event
	stopped chan struct{}
	stop    sync.Once
}

// hear passes a watch on in a goroutine of work's, which ends with the watch.
func hear(from watch.Interface, work *sync.WaitGroup, answered func(error)) *heard {
	h := &heard{from: from, out: make(chan watch.Event), stopped: make(chan struct{})}
	work.Go(func() { h.pass(answered) })
	return h
}

// ResultChan implements watch.Interface.
func (h *heard) ResultChan() <-chan watch.Event { return h.out }

// Stop implements watch.Interface.
func (h *heard) Stop() {
	h.stop.Do(func() { close(h.stopped) })
	h.from.Stop()
}

// pass hands events on, and says once whether they are an answer.
func (h *heard) pass(answered func(error)) {
	defer close(h.out)
	quiet := time.NewTimer(quietFor)
	defer quiet.Stop()
	said := false
	say := func(err error) {
		if !said {
			said = true
			answered(err)
		}
	}
	for {
		select {
		case <-h.stopped:
			return
		case <-quiet.C:
			say(nil)
		case e, more := <-h.from.ResultChan():
			if !more {
				h.ended(say)
				return
			}
			say(wrong(e))
			select {
			case h.out <- e:
			case <-h.stopped:
				return
			}
		}
	}
}

// ended says that the watch came to its end, where it was not asked to.
func (h *heard) ended(say func(error)) {
	select {
	case <-h.stopped:
	default:
		say(errCutOff)
	}
}

// unreadable is what client-go gives as the cause where it cannot read an event.
const unreadable = "ClientWatchDecoding"

// wrong is what an event says that is no answer; nil: it is one. What the API
// itself has against a watch (what was seen last is too old, this way to begin is
// switched off) is an answer: all is listed then.
func wrong(e watch.Event) error {
	if e.Type != watch.Error {
		return nil
	}
	if err := apierrors.FromObject(e.Object); apierrors.HasStatusCause(err, unreadable) {
		return said("watch pods", err)
	}
	return nil
}
