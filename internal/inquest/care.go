// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"cmp"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/parse/kubelet"
	"github.com/coroner-dev/coroner/internal/signal"
)

// The restart policies that matter here: one is what a pod has that names none, with
// the other the kubelet does not say why it stops a container.
const (
	restartAlways = "Always"
	restartNever  = "Never"
)

// lookedAfter takes over what Kubernetes does where the container fails.
func (t *tenant) lookedAfter(b signal.ContainerSeen) {
	t.restarts = cmp.Or(b.RestartPolicy, t.restarts)
	t.liveness = cmp.Or(b.Liveness, t.liveness)
	t.startup = cmp.Or(b.Startup, t.startup)
}

// probe is a probe of t's, by its kind; nil: it has none, or it is not known.
func (t *tenant) probe(kind string) *signal.Probe {
	switch {
	case t == nil:
		return nil
	case kind == "startup":
		return t.startup
	}
	return t.liveness
}

// settings adds what Kubernetes was told of a probe of t's.
func (t *tenant) settings(p *verdict.Probe) {
	if is := t.probe(p.Kind); is != nil {
		p.Period, p.Timeout, p.Failures = seconds(is.PeriodSeconds), seconds(is.TimeoutSeconds), int(is.Failures)
	}
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

// stopWords are the kubelet's for that it stops c's container: why it makes it
// anew, or that it stops it and not why.
func (q *Inquest) stopWords(c *caseFile, name string) (replaced string, stopping bool) {
	for i := range c.events.Events {
		e := &c.events.Events[i]
		if e.Reason != "Killing" || e.Container != name || !q.aroundEnd(c, e) {
			continue
		}
		if q.afterBegin(c, e) {
			replaced = cmp.Or(replaced, kubelet.Replaced(e.Message))
		}
		stopping = stopping || kubelet.Stopping(e.Message)
	}
	return replaced, stopping
}

// careEvidence is what Kubernetes was told to do where c's container fails, as far
// as it came to that.
func (q *Inquest) careEvidence(c *caseFile) []death.Evidence {
	t := q.tenantOf(c)
	if t == nil || !c.ended || c.container == nil {
		return nil
	}
	var out []death.Evidence
	say := func(text string) {
		out = append(out, death.Evidence{Time: c.endTime().UTC(), Source: death.SourceKube, Text: text})
	}
	if r := t.restarts; r != "" && r != restartAlways {
		say("its restart policy is " + death.Printable(r))
	}
	if c.events == nil {
		return out
	}
	if p := q.probeOf(c, q.dressed(c).Name); p != nil {
		if is := t.probe(p.Kind); is != nil {
			say("its " + p.Kind + " probe" + settingsOf(is))
		}
	}
	return out
}

// settingsOf are those of a probe, in words.
func settingsOf(p *signal.Probe) string {
	s := ""
	if p.How != "" {
		s = " (" + p.How + ")"
	}
	s += " is asked each " + itoa(int(p.PeriodSeconds)) + " s"
	if p.DelaySeconds > 0 {
		s += ", the first time after " + itoa(int(p.DelaySeconds)) + " s"
	}
	return s + ", may take " + itoa(int(p.TimeoutSeconds)) + " s, and fails for good after " + itoa(int(p.Failures)) + " in a row"
}
