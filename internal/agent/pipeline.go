// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"sync/atomic"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/recorder"
	"github.com/coroner-dev/coroner/internal/signal"
)

const (
	// signalQueue bounds the signals between the sources and the inquest. A
	// full queue makes the sources wait; what the kernel then drops it counts.
	// At some 400 bytes a signal it holds 1.6 MiB at most.
	signalQueue = 4096
	// batch is how many signals are taken before their deaths are given out.
	batch = 256
	// tick is how often the inquest hears the time.
	tick = 200 * time.Millisecond
)

// progress is what one round of the inquest gives out.
type progress struct {
	deaths []death.Death
	// state is kept in the same transaction: what these deaths tell of what
	// the kernel counted.
	state map[string]string
}

// pipeline runs the inquest: it is the one goroutine that owns it.
type pipeline struct {
	q    *inquest.Inquest
	in   chan signal.Signal
	give func(progress)
	// ask looks up what the inquest wants to know, without waiting; it returns
	// the answer where it will not.
	ask   func(inquest.Want) *signal.Signal
	fed   func(signal.Signal) // is told each signal, in the inquest's order; nil: nobody is
	rec   *recorder.Recorder  // nil: nothing is recorded
	homes homes
	// arrivals rings where a pod has a new container.
	arrivals bell
	soon     func() // has it looked who lives outside of containers
	stats    atomic.Pointer[inquest.Stats]
	living   *roster
	node     atomic.Pointer[signal.NodeSeen]
	shares   *shares
}

func newPipeline(q *inquest.Inquest, give func(progress)) *pipeline {
	p := &pipeline{q: q, in: make(chan signal.Signal, signalQueue), give: give, living: newRoster(), shares: newShares()}
	p.soon = func() {}
	p.ask = func(inquest.Want) *signal.Signal { return nil }
	p.stats.Store(&inquest.Stats{})
	return p
}

// emit hands a signal to the inquest, and waits while its queue is full.
func (p *pipeline) emit(s signal.Signal) { p.in <- s }

// run takes signals until the queue is closed and empty.
func (p *pipeline) run() {
	timer := time.NewTimer(untilTick(time.Now()))
	defer timer.Stop()
	counted := false
	for open := true; open; {
		settled := false
		select {
		case s, ok := <-p.in:
			if !ok {
				open, settled = false, true
				break
			}
			p.feed(s)
			p.drain(batch)
		case now := <-timer.C:
			// What was said before this time comes first: nothing is decided
			// for want of what waits in the queue.
			p.drain(len(p.in))
			p.q.Tick(now)
			p.living.abandoned(p.q.TakeAbandoned())
			settled = true
			timer.Reset(untilTick(time.Now()))
		}
		st := p.q.Stats()
		was := p.stats.Swap(&st)
		// The machine's own count is kept too, also where no death comes with it.
		counted = counted || st.NodeTotal != was.NodeTotal || st.Unattributed != was.Unattributed
		if p.hand(settled, counted) {
			counted = false
		}
		p.lookUp()
	}
}

// untilTick is the time to the next whole tick of the clock, at which the
// counters are read and the recorder reads too: the agent then wakes up once.
func untilTick(now time.Time) time.Duration { return tick - time.Duration(now.UnixNano())%tick }

// lookUp has that looked up which the inquest wants to know of the deaths that
// were given out.
func (p *pipeline) lookUp() {
	for _, want := range p.q.TakeWants() {
		if refused := p.ask(want); refused != nil {
			p.feed(*refused)
		}
	}
}

// hand gives on what the inquest has found. What changed without a death waits
// for the next tick.
func (p *pipeline) hand(settled, counted bool) bool {
	deaths := p.q.Take()
	if len(deaths) == 0 && !settled {
		return false
	}
	told := p.q.TakeTold()
	p.living.died(deaths, p.q.ContainerKey)
	if len(deaths) > 0 {
		p.soon()
	}
	restarts := p.living.takeChanges()
	if len(deaths) == 0 && told.Empty() && !counted && len(restarts) == 0 {
		return false
	}
	state := toldState(told)
	maps.Copy(state, restarts)
	p.give(progress{deaths: deaths, state: state})
	return true
}

// drain takes what else waits, as much as most, so that a storm is given out in
// batches.
func (p *pipeline) drain(most int) {
	for range most {
		select {
		case s, ok := <-p.in:
			if !ok {
				return
			}
			p.feed(s)
		default:
			return
		}
	}
}

func (p *pipeline) feed(s signal.Signal) {
	if p.fed != nil {
		p.fed(s)
	}
	believed := p.q.Believes(s)
	p.q.Feed(s)
	if !believed {
		return
	}
	p.observed(s)
	p.shares.feed(s.Body)
	var c *death.Container
	key := ""
	switch b := s.Body.(type) {
	case signal.CgroupSeen:
		if c = p.q.Listed(b.Path); c != nil {
			key = p.q.ContainerKey(c)
		}
	case signal.PodSeen:
		if !p.q.PodIsTold(b.Pod.UID) {
			return
		}
	case signal.Exit:
		if key = p.q.SandboxEnded(b); key == "" {
			return
		}
	case signal.ContainerSeen:
		c, key = p.q.Tenant(b.Namespace, b.Container.ID)
	case signal.ContainerExit:
		c, key = p.q.Tenant(b.Namespace, b.ID)
	case signal.ContainerGone:
		c, key = p.q.Tenant(b.Namespace, b.ID)
	case signal.NodeSeen:
		p.node.Store(&b)
		return
	case signal.CgroupGone:
	default:
		return
	}
	p.living.feed(s, c, key)
}
