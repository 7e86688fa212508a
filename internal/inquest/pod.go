// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/parse/kubelet"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxPods bounds the pods known from Kubernetes, with their tombstones.
const maxPods = 8192

// askEventsAfter is how long after a container's end its pod's events are
// asked for: the kubelet writes them beside what it does.
const askEventsAfter = time.Second

// podFile is a pod as Kubernetes has it. It outlives its removal for a while.
type podFile struct {
	signal.PodSeen
	goneAt time.Time // zero while it is there
	told   bool      // its own death, that of a pod of which nothing ran
}

// pods are those that Kubernetes tells of.
type pods struct {
	ttl    time.Duration
	byUID  map[string]*podFile
	graves []*podFile // gone, oldest first
	full   uint64     // pods that there was no room for
}

func newPods(ttl time.Duration) pods { return pods{ttl: ttl, byUID: map[string]*podFile{}} }

// see lays what Kubernetes says over what was known.
func (x *pods) see(b signal.PodSeen) *podFile {
	p := x.byUID[b.Pod.UID]
	if p == nil {
		if len(x.byUID) >= maxPods || b.Pod.UID == "" {
			x.full++
			return nil
		}
		p = &podFile{}
		x.byUID[b.Pod.UID] = p
	}
	if b.Disruption == nil {
		b.Disruption = p.Disruption
	}
	if p.Deletion != nil { // the first request counts
		b.Deletion = p.Deletion
	}
	p.PodSeen, p.goneAt = b, time.Time{}
	return p
}

// restored is the pod of a death of its own that was told by an earlier run. If
// nobody tells of the pod any more it is soon forgotten.
func (x *pods) restored(of *death.Pod, now time.Time) *podFile {
	p := x.byUID[of.UID]
	if p == nil {
		if p = x.see(signal.PodSeen{Pod: *of, NeverRan: true}); p == nil {
			return &podFile{PodSeen: signal.PodSeen{Pod: *of, NeverRan: true}}
		}
		x.gone(of.UID, now)
	}
	p.told = true
	return p
}

func (x *pods) gone(uid string, now time.Time) {
	if p := x.byUID[uid]; p != nil && p.goneAt.IsZero() {
		p.goneAt = now
		x.graves = append(x.graves, p)
	}
}

func (x *pods) expire(now time.Time) {
	n := 0
	for n < len(x.graves) && (now.Sub(x.graves[n].goneAt) > x.ttl || len(x.byUID) > maxPods/2) {
		if p := x.graves[n]; !p.goneAt.IsZero() {
			delete(x.byUID, p.Pod.UID)
		}
		n++
	}
	if n > 0 {
		x.graves = append(x.graves[:0:0], x.graves[n:]...)
	}
}

// podSeen takes what Kubernetes says of a pod.
func (q *Inquest) podSeen(s signal.Signal, b signal.PodSeen) {
	p := q.pods.see(b)
	if p == nil {
		return
	}
	for _, c := range q.cases {
		if q.podOf(c) == p {
			q.touchNames(c)
		}
	}
	q.evictedUnstarted(s, p)
}

// podOf is the pod of c as Kubernetes has it; nil: it is in none, or not known.
func (q *Inquest) podOf(c *caseFile) *podFile {
	if c.pod != nil {
		return c.pod
	}
	if d := q.dressed(c); d != nil && d.Pod != nil {
		return q.pods.byUID[d.Pod.UID]
	}
	return nil
}

// evictedUnstarted opens the death of a pod that was made to go before any of
// its containers ran.
func (q *Inquest) evictedUnstarted(s signal.Signal, p *podFile) {
	if !p.NeverRan || p.Reason == "" && p.Disruption == nil {
		return
	}
	for _, c := range q.cases {
		if c.pod == p {
			q.touchNames(c)
			return
		}
	}
	if p.told {
		return
	}
	p.told = true
	at := s
	if !p.Failed.IsZero() {
		at.Time = p.Failed
	}
	c := q.open(at, "pod "+p.Pod.UID)
	c.pod, c.container = p, &death.Container{Pod: &p.Pod}
	q.touch(c)
}

const (
	// wordFor is how long an end stays open for the word of its engine, and one in
	// a pod for that of Kubernetes where the API answers, or since it does again.
	// Nobody waits for it.
	wordFor = time.Minute
	// awayFor is the same where the API does not answer.
	awayFor = 24 * time.Hour
)

// awaitsWord tells whether Kubernetes is still to say what it has of c's end.
func (q *Inquest) awaitsWord(c *caseFile) bool {
	if !c.ended || c.told(death.SourceKube) {
		return false
	}
	p := q.podOf(c)
	if p == nil || !p.goneAt.IsZero() || q.now.Sub(c.observed) > awayFor {
		return false
	}
	return q.kubeAway() || q.now.Sub(later(c.observed, q.wordSince)) <= wordFor
}

// kubeAway tells whether the API does not answer: the kubelet, which stands in
// for it, tells no ends.
func (q *Inquest) kubeAway() bool {
	return !q.up[death.SourceKube] || q.mode[death.SourceKube] == "kubelet"
}

const (
	// eventsTries is how often the events of a pod are asked for where the answer
	// is none, or that of a moment too early; eventsAgain is how long in between.
	eventsTries = 3
	eventsAgain = 5 * time.Second
	// eventsKept is how long the API keeps events (--event-ttl): what ended while no
	// agent ran may have some.
	eventsKept = time.Hour
)

// wantEvents asks for the events of each pod in which a container ended.
func (q *Inquest) wantEvents() {
	if !q.up[death.SourceKube] {
		return
	}
	for _, c := range q.cases {
		ago := q.now.Sub(c.endTime())
		if !c.eventsAsked.IsZero() || !c.ended && c.pod == nil || ago < askEventsAfter || q.now.Before(c.eventsAt) || q.hasEvents(c, ago) {
			continue
		}
		p := q.podOf(c)
		if p == nil || len(q.wants) >= maxWants {
			continue
		}
		c.eventsAsked = c.endTime()
		c.await(WantEvents, q.now.Add(wantFor))
		q.wants = append(q.wants, Want{Kind: WantEvents, Source: death.SourceKube, Pod: p.Pod, At: c.eventsAsked})
	}
}

// hasEvents tells whether c, so long ago, has all events that there may be: of what
// ended while no agent ran the API may have some, and of what an earlier run told
// while the API was away.
func (q *Inquest) hasEvents(c *caseFile, ago time.Duration) bool {
	told := func(e death.Evidence) bool {
		return e.Source == death.SourceKube && strings.HasPrefix(e.Text, eventLine)
	}
	return (c.recovered || c.prior != nil) && ago > eventsKept || q.answered(c) && slices.ContainsFunc(c.evidence, told)
}

// podEvents takes the answer to WantEvents.
func (q *Inquest) podEvents(s signal.Signal, b signal.PodEvents) {
	if b.UID != "" && b.UID == q.opts.Node {
		q.systemOOM(b)
		return
	}
	for _, c := range q.cases {
		p := q.podOf(c)
		if p == nil || p.Pod.UID != b.UID || c.eventsAsked.IsZero() || c.eventsTries >= eventsTries || !c.eventsAsked.Equal(b.At) {
			continue
		}
		c.events = &b
		delete(c.awaits, WantEvents)
		if c.eventsTries++; c.eventsTries < eventsTries && q.halfTold(c) {
			c.eventsAsked, c.eventsAt = time.Time{}, q.now.Add(eventsAgain)
			c.await(WantEvents, c.eventsAt.Add(time.Second))
			q.touchNames(c)
			return
		}
		c.eventsTries = eventsTries
		if b.Error != "" && c.prior == nil { // else it may have been known
			c.note(s, "what Kubernetes noted of the pod is not known: %s", death.Printable(b.Error))
		}
		q.touchNames(c)
		return
	}
	q.stats.Late++
}

// halfTold tells whether the events of c's pod are to be asked for again: they
// could not be read, or a probe failed, and that the kubelet acts on it, which it
// writes next, is not among them yet.
func (q *Inquest) halfTold(c *caseFile) bool {
	if c.events.Error != "" {
		return true
	}
	failed := false
	for i := range c.events.Events {
		e := &c.events.Events[i]
		if !q.aroundEnd(c, e) {
			continue
		}
		if e.Reason == "Killing" {
			return false
		}
		failed = failed || e.Reason == "Unhealthy"
	}
	return failed
}

// eventGrain is how far an event's time and an end's may be apart: both are
// whole seconds at times, and an event is written beside what it tells of.
const eventGrain = 2 * time.Second

// podFacts says what Kubernetes knows of the end.
func (q *Inquest) podFacts(c *caseFile, f *verdict.Facts) {
	p := q.podOf(c)
	if p == nil {
		return
	}
	f.PodReason, f.PodMessage, f.PodNeverRan, f.PodGrace, f.Deadline = p.Reason, p.Message, c.pod != nil, q.grace(c), p.Deadline
	if d := p.Disruption; d != nil {
		f.Disruption = &verdict.Disruption{Reason: d.Reason, Message: d.Message, At: d.At}
	}
	if d := p.Deletion; d != nil {
		f.Deletion = &verdict.Deletion{At: d.At, Grace: time.Duration(d.GraceSeconds) * time.Second}
	}
	if c.events == nil || c.container == nil {
		return
	}
	for i := range c.events.Events {
		switch e := &c.events.Events[i]; {
		case e.Reason == "Evicted":
			f.EvictedAt = e.First
		case e.Reason == "TaintManagerEviction" && kubelet.ByTaint(e.Message) && q.aroundEnd(c, e):
			f.TaintedAt = e.First
		}
	}
	name := q.dressed(c).Name
	if f.Probe = q.probeOf(c, name); f.Probe != nil {
		q.tenantOf(c).settings(f.Probe)
	}
	f.Replaced, f.Stopping = q.stopWords(c, name)
}

// probeOf is the probe for which the kubelet stopped c's container; nil: none is
// known.
func (q *Inquest) probeOf(c *caseFile, name string) *verdict.Probe {
	var probe *verdict.Probe
	for i := range c.events.Events {
		e := &c.events.Events[i]
		if kind, _ := kubelet.Probe(e.Message); e.Reason == "Killing" && kind != "" && e.Container == name && q.aroundEnd(c, e) && q.afterBegin(c, e) {
			probe = &verdict.Probe{Kind: kind, At: e.First}
		}
	}
	if probe == nil {
		return q.inferredProbe(c, name)
	}
	for i := range c.events.Events {
		e := &c.events.Events[i]
		if kind, found, ok := kubelet.FailedProbe(e.Message); ok && e.Reason == "Unhealthy" && kind == probe.Kind && e.Container == name {
			probe.Found, probe.Times = found, e.Count
		}
	}
	return probe
}

// inferredProbe is the probe that had failed just before the kubelet stopped c's
// container without saying why, as it does in a pod that is not restarted.
func (q *Inquest) inferredProbe(c *caseFile, name string) *verdict.Probe {
	if t := q.tenantOf(c); t != nil && t.restarts != "" && t.restarts != restartNever {
		return nil // of one that it starts again the kubelet says why
	}
	for i := range c.events.Events {
		stop := &c.events.Events[i]
		if stop.Reason != "Killing" || stop.Container != name || !kubelet.Stopping(stop.Message) || !q.aroundEnd(c, stop) {
			continue
		}
		if p := failedBefore(c.events.Events, stop, name); p != nil {
			return p
		}
	}
	return nil
}

// failedBefore is the probe of a container that failed just before it was stopped.
func failedBefore(events []signal.PodEvent, stop *signal.PodEvent, name string) *verdict.Probe {
	for i := range events {
		e := &events[i]
		kind, found, ok := kubelet.FailedProbe(e.Message)
		if !ok || e.Reason != "Unhealthy" || e.Container != name || kind == "readiness" {
			continue
		}
		if d := stop.First.Sub(e.Last); d >= -eventGrain && d <= eventGrain {
			return &verdict.Probe{Kind: kind, At: stop.First, Found: found, Times: e.Count, Inferred: true}
		}
	}
	return nil
}

// aroundEnd tells whether an event, or one of those that it stands for, can
// belong to c's end: it came within the grace period before, and of a container in
// the run that ended. The run before this one can have ended as shortly before.
func (q *Inquest) aroundEnd(c *caseFile, e *signal.PodEvent) bool {
	end := c.endTime()
	if e.Container != "" && e.Last.Before(q.runBegan(c).Truncate(time.Second)) {
		return false
	}
	return !e.First.After(end.Add(eventGrain)) && !e.Last.Before(end.Add(-q.grace(c)-2*eventGrain))
}

// runBegan is when the run began that ended with c; zero: not known.
func (q *Inquest) runBegan(c *caseFile) time.Time {
	if at := c.words.started; !at.IsZero() {
		return at
	}
	if t := q.tenantOf(c); t != nil && !t.started.After(c.endTime()) {
		return t.started
	}
	return time.Time{}
}

// afterBegin tells whether an event came in a later second than the one in which
// the run began: no probe fails in that, and the run before may have ended in it.
func (q *Inquest) afterBegin(c *caseFile, e *signal.PodEvent) bool {
	began := q.runBegan(c)
	return began.IsZero() || e.Last.After(began.Truncate(time.Second))
}

// grace is how long c's container may take to stop.
func (q *Inquest) grace(c *caseFile) time.Duration {
	if t := q.tenantOf(c); t != nil && t.grace != nil {
		return time.Duration(*t.grace) * time.Second
	}
	return 30 * time.Second // what Kubernetes gives where nobody says otherwise
}

// podEvidence is what Kubernetes said, for the evidence.
func (q *Inquest) podEvidence(c *caseFile) []death.Evidence {
	p := q.podOf(c)
	if p == nil || !c.ended && c.pod == nil {
		return nil
	}
	var out []death.Evidence
	say := func(at time.Time, text string) {
		if at.IsZero() {
			at = c.endTime()
		}
		out = append(out, death.Evidence{Time: at.UTC(), Source: death.SourceKube, Text: text})
	}
	if d := p.Deletion; d != nil && !d.At.After(c.endTime().Add(eventGrain)) {
		say(d.At, "somebody asked for the pod's deletion, with a grace period of "+verdict.Spell(time.Duration(d.GraceSeconds)*time.Second))
	}
	if d := p.Disruption; d != nil {
		say(d.At, "condition DisruptionTarget, "+death.Printable(d.Reason)+": "+death.Printable(d.Message))
	} else if p.Reason != "" {
		say(time.Time{}, "the pod's reason is "+death.Printable(p.Reason)+": "+death.Printable(p.Message))
	}
	out = append(out, q.careEvidence(c)...)
	return append(out, q.eventEvidence(c)...)
}

// eventLine is how a line of evidence begins that is an event of the pod.
const eventLine = "event "

// eventEvidence is what Kubernetes noted of the pod around c's end.
func (q *Inquest) eventEvidence(c *caseFile) []death.Evidence {
	if c.events == nil {
		return nil
	}
	name := ""
	if d := q.dressed(c); d != nil {
		name = d.Name
	}
	var out []death.Evidence
	for i := range c.events.Events {
		e := &c.events.Events[i]
		if !ofAnEnd[e.Reason] || e.Container != "" && e.Container != name || !q.aroundEnd(c, e) {
			continue
		}
		text := eventLine + death.Printable(e.Reason) + ": " + death.Printable(e.Message)
		if e.Count > 1 {
			text += " (" + itoa(e.Count) + " times)"
		}
		at := e.First
		if at.IsZero() {
			at = c.endTime()
		}
		out = append(out, death.Evidence{Time: at.UTC(), Source: death.SourceKube, Text: text})
	}
	return out
}

// ofAnEnd are the reasons of events that bear on an end.
var ofAnEnd = map[string]bool{
	"Killing": true, "Unhealthy": true, "Evicted": true, "Preempted": true, "Preempting": true, "TaintManagerEviction": true,
	"NodeShutdown": true, "ExceededGracePeriod": true, "FailedPostStartHook": true, "FailedPreStopHook": true, "SandboxChanged": true,
}
