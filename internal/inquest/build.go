// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/signal"
)

// build makes the death that c now tells, and whether it says more than what
// was given out last.
func (q *Inquest) build(c *caseFile) (death.Death, bool) {
	q.learnEscapes(c)
	q.strayOf(c)
	q.rememberOOM(c)
	q.takeOOMWord(c)
	f := q.facts(c)
	v := verdict.Judge(f)
	if v.AsksLog {
		q.wantLog(c)
	}
	if c.daemon != "" || v.AsksDaemon {
		q.wantDaemon(c)
	}
	d := death.Death{
		ID: c.id, Revision: c.revision + 1,
		Time: c.at.UTC(), ObservedAt: c.observed.UTC(),
		Node: q.opts.Node, Subject: death.SubjectProcess,
		Cause: v.Cause, Confidence: v.Confidence, Rule: v.Rule,
		Summary: v.Summary, Advice: v.Advice,
		Container: q.dressed(c), Unit: c.unit,
		Killer:   q.dressKiller(c.killer),
		Evidence: q.sortedEvidence(c, f, v), Recovered: c.recovered,
	}
	switch {
	case c.pod != nil:
		d.Subject = death.SubjectPod
	case c.ended && c.container != nil:
		d.Subject = death.SubjectContainer
	}
	for _, p := range c.procs {
		told := p.known()
		told.Comm, told.Cgroup = valid(told.Comm), valid(told.Cgroup)
		d.Processes = append(d.Processes, told)
	}
	if k := v.Killer; k != nil && d.Killer == nil {
		d.Killer = k
	}
	c.validNames(&d)
	if c.oomKilled {
		d.OOM = c.oomRecord(f)
	}
	d.Memory = c.memoryRecord(&f)
	c.keepPrior(&d)
	d.Exit = c.reported(d.Cause)
	d.Repeat = q.series.place(c, &d)
	if c.last != nil && same(c.last, &d) {
		return death.Death{}, false
	}
	c.revision++
	c.last = &d
	return d, true
}

// dressKiller names the killer's container as the engines do, of which one may say
// only now whose its cgroup is.
func (q *Inquest) dressKiller(k *death.Killer) *death.Killer {
	if k == nil {
		return nil
	}
	d := *k
	if d.Container == nil && d.Cgroup != "" {
		if of, _, _, _ := q.owner(d.Cgroup); of != nil {
			d.Container, d.Unit = of, ""
		}
	}
	d.Container = q.tenants.dress(d.Container)
	return &d
}

// valid keeps what JSON could not carry: bytes that are no UTF-8 come out as
// the kernel itself shows them, \xNN. All else stays as it is.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)) {
			fmt.Fprintf(&b, `\x%02x`, s[i])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// validNames makes the owner's and the killer's names valid, in copies.
func (c *caseFile) validNames(d *death.Death) {
	if d.Container != nil && !utf8.ValidString(d.Container.Cgroup) {
		copied := *d.Container
		copied.Cgroup = valid(copied.Cgroup)
		d.Container = &copied
	}
	d.Unit = valid(d.Unit)
	if k := d.Killer; k != nil {
		copied := *k
		copied.Comm, copied.Cgroup, copied.Unit = valid(k.Comm), valid(k.Cgroup), valid(k.Unit)
		d.Killer = &copied
	}
}

// keepPrior keeps the verdict from before a restart unless what came since
// carries further: what was known then is not all known now, and what is left
// of it is nothing new, however certain.
func (c *caseFile) keepPrior(d *death.Death) {
	p := c.prior
	same := d.Rule == c.restored.Rule && d.Confidence == c.restored.Confidence
	if p == nil || !same && rank(d.Confidence) > rank(p.Confidence) {
		return
	}
	d.Cause, d.Confidence, d.Rule, d.Summary, d.Advice = p.Cause, p.Confidence, p.Rule, p.Summary, p.Advice
	if d.Memory == nil {
		d.Memory = p.Memory
	}
}

func rank(c death.Confidence) int {
	switch c {
	case death.Certain:
		return 3
	case death.Probable:
		return 2
	}
	return 1
}

func same(a, b *death.Death) bool {
	x, y := *a, *b
	y.Revision = x.Revision
	ja, erra := json.Marshal(x)
	jb, errb := json.Marshal(y)
	return erra == nil && errb == nil && bytes.Equal(ja, jb)
}

func (c *caseFile) oomRecord(f verdict.Facts) *death.OOM {
	o := c.oom
	o.TaskMemcg, o.OOMMemcg = valid(c.taskMemcg), valid(f.OOMMemcg)
	if o.Constraint == "" && f.Basis == verdict.BasisInferred {
		o.Constraint = f.Constraint
	}
	o.UsageBytes, o.LimitBytes = f.UsageBytes, f.LimitBytes
	o.GroupKill = c.group
	if c.invocation != nil {
		o.Containers = len(c.invocation.cases)
	} else if c.ended && c.container != nil {
		o.Containers = 1
	}
	if o.Trigger != nil {
		t := *o.Trigger
		t.Comm, t.Cgroup = valid(t.Comm), valid(t.Cgroup)
		o.Trigger = &t
	}
	return &o
}

func (q *Inquest) sortedEvidence(c *caseFile, f verdict.Facts, v verdict.Verdict) []death.Evidence {
	out := slices.Concat(q.askEvidence(c), q.podEvidence(c), q.strayEvidence(c), q.oomEvidence(c), q.nodeEvidence(c, v.Cause), c.systemEvidence(v.Cause), changeEvidence(f.Changes), c.evidence)
	if c.escaped != nil {
		out = append(out, c.escaped.evidence(f.ContainerLimit))
	}
	if v.Claim != nil {
		out = append(out, c.logEvidence(v.Claim))
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Time.Before(out[j].Time) })
	if c.prior != nil {
		out = once(out) // what is found out again
	}
	last := death.Evidence{Time: c.at.UTC(), Source: death.SourceTracepoint}
	if len(out) > 0 {
		last.Time, last.Source = out[len(out)-1].Time, out[len(out)-1].Source
	}
	if f.Basis == verdict.BasisInferred {
		whose := death.Evidence{Time: last.Time, Source: death.SourceCgroup, Text: inferredText(f)}
		if c.chainAtKill {
			whose.Source = death.SourceTracepoint // which read the figures
		}
		out = append(out, whose)
	}
	if c.unshown > 0 {
		last.Text = itoa(c.unshown) + " more lines of evidence or processes are not shown"
		out = append(out, last)
	}
	return out
}

// once leaves of each line the first: of those of one time others may lie between.
func once(lines []death.Evidence) []death.Evidence {
	var out []death.Evidence
	for _, e := range lines {
		if !slices.ContainsFunc(out, func(o death.Evidence) bool { return sameLine(o, e) }) {
			out = append(out, e)
		}
	}
	return out
}

func inferredText(f verdict.Facts) string {
	if f.OOMMemcg == "" {
		return "inferred: no cgroup around the victim was at its limit, so the machine itself ran out"
	}
	t := "inferred: the limit that was reached is that of " + death.Printable(f.OOMMemcg)
	if f.UsageBytes != nil && f.LimitBytes != nil {
		t += ", where usage was " + death.FormatBytes(*f.UsageBytes) + " of " + death.FormatBytes(*f.LimitBytes)
	}
	return t
}

// facts lays out for the rules what c knows.
func (q *Inquest) facts(c *caseFile) verdict.Facts {
	f := verdict.Facts{
		Container: q.dressed(c), Unit: c.unit, PodCgroup: c.podCgroup, TaskMemcg: c.taskMemcg,
		OOM: c.oomKilled, SaidMemcg: c.saidMemcg, SaidGlobal: c.saidGlobal,
		Constraint: c.oom.Constraint, OOMMemcg: c.oom.OOMMemcg,
		UsageBytes: c.oom.UsageBytes, LimitBytes: c.oom.LimitBytes,
		Manual: c.oom.Order != nil && *c.oom.Order == -1,
		Group:  c.group, CountedOnly: c.countedOnly,
		Trigger: c.oom.Trigger, Ended: c.ended && c.container != nil, Tasks: c.oom.Tasks,
		Killer: q.dressKiller(c.killer), KillerIsRuntime: c.killerRuntime, OOMDaemon: c.daemon, DaemonObeyed: c.daemonObeyed, DaemonWhy: c.daemonWhy, DaemonLogged: c.daemonLogged,
	}
	for _, p := range c.procs {
		f.Processes = append(f.Processes, p.known())
	}
	f.LivesOn = q.livesOn(c)
	q.endFacts(c, &f)
	q.podFacts(c, &f)
	q.nodeFacts(c, &f)
	f.MemswLimitBytes = swapLimitReached(&c.oom)
	if c.named {
		f.Basis = verdict.BasisKernel
	} else if c.oomKilled {
		q.infer(c, &f)
	}
	c.ownLimits(&f)
	c.memoryFacts(&f)
	q.strayFacts(c, &f)
	q.limitFigures(c, &f)
	f.Changes = q.changes(c)
	return f
}

// swapLimitReached is the limit of memory and swap together where that was
// reached and the one of memory was not.
func swapLimitReached(o *death.OOM) *int64 {
	if o.MemswLimitBytes == nil || o.MemswUsageBytes == nil || o.UsageBytes == nil || o.LimitBytes == nil {
		return nil
	}
	if *o.MemswUsageBytes < *o.MemswLimitBytes || *o.UsageBytes >= *o.LimitBytes-limitSlack(*o.LimitBytes) {
		return nil
	}
	return o.MemswLimitBytes
}

// limitFigures says what kind of cgroup the limit's is, and takes its figures
// from the chain where the report has none.
func (q *Inquest) limitFigures(c *caseFile, f *verdict.Facts) {
	if t := q.tenantOf(c); t != nil {
		f.MemorySwap = t.memswap
	}
	if f.OOMMemcg == "" {
		return
	}
	f.OOMLevel = q.level(f.OOMMemcg)
	for _, l := range c.chain {
		if l.Path != f.OOMMemcg {
			continue
		}
		if f.LimitBytes == nil {
			f.LimitBytes = l.LimitBytes
		}
		if f.UsageBytes == nil && c.chainAtKill {
			f.UsageBytes = l.UsageBytes
		}
	}
	if f.Constraint == "" {
		f.Constraint = verdict.ConstraintMemcg
	}
}

// livesOn tells whether the container is known to have outlived this: none of
// the dead was its first process, by a source that can tell, and no group died.
func (q *Inquest) livesOn(c *caseFile) bool {
	if c.container == nil || c.ended || c.group || !c.initKnown() {
		return false
	}
	e := q.roster.byPath[c.container.Cgroup]
	return c.chainAtKill || (e != nil && e.initPID != 0)
}

// ownLimits takes the container's and the pod's limits from the chain.
func (c *caseFile) ownLimits(f *verdict.Facts) {
	for _, l := range c.chain {
		switch {
		case c.container != nil && l.Path == c.container.Cgroup:
			f.ContainerLimit = l.LimitBytes
			f.ContainerUnlimited = l.LimitBytes == nil
			if c.chainAtKill {
				f.ContainerUsage = l.UsageBytes
			}
		case l.Path != "" && l.Path == c.podCgroup:
			f.PodLimit = l.LimitBytes
		}
	}
	if c.container != nil && f.OOMMemcg == c.container.Cgroup && c.oom.LimitBytes != nil {
		f.ContainerLimit = c.oom.LimitBytes
	}
}

// limitSlack is how far below its limit a cgroup's usage may be when a charge
// fails: the kernel charges in batches of up to 64 pages (MEMCG_CHARGE_BATCH,
// include/linux/memcontrol.h), and others may free meanwhile.
func limitSlack(limit int64) int64 { return max(1<<20, limit/256) }

// infer finds whose limit it was when the kernel's report is missing.
func (q *Inquest) infer(c *caseFile, f *verdict.Facts) {
	if c.saidGlobal {
		return
	}
	usageKnown := c.chainAtKill && len(c.chain) > 0
	for _, l := range []*signal.Level{q.risen(c), c.fullest(), c.onlyLimit()} {
		if l == nil {
			continue
		}
		f.Basis, f.OOMMemcg, f.Constraint = verdict.BasisInferred, l.Path, verdict.ConstraintMemcg
		f.LimitBytes = l.LimitBytes
		if usageKnown {
			f.UsageBytes = l.UsageBytes
		}
		return
	}
	if usageKnown && !c.saidMemcg {
		f.Basis, f.Constraint = verdict.BasisInferred, verdict.ConstraintNone
	}
}

// risen is the level whose own oom counter rose around the kill (v2): the
// outermost, for limits are checked from the inside out.
func (q *Inquest) risen(c *caseFile) *signal.Level {
	var hit *signal.Level
	for i := range c.chain {
		l := &c.chain[i]
		if at, ok := q.ledger.limitHit[l.Path]; ok && l.Path != "" && at.Sub(c.observed).Abs() < q.opts.Settle {
			hit = l
		}
	}
	return hit
}

// fullest is the level that was at its limit at the kill, the fullest of them.
func (c *caseFile) fullest() *signal.Level {
	var full *signal.Level
	for i := range c.chain {
		l := &c.chain[i]
		if !c.chainAtKill || l.Path == "" || l.LimitBytes == nil || l.UsageBytes == nil || gap(l) > limitSlack(*l.LimitBytes) {
			continue
		}
		if full == nil || gap(l) < gap(full) {
			full = l
		}
	}
	return full
}

// onlyLimit is the one level with a limit, where the kill line speaks of a
// cgroup and no other level has one.
func (c *caseFile) onlyLimit() *signal.Level {
	var only *signal.Level
	for i := range c.chain {
		l := &c.chain[i]
		if l.LimitBytes == nil {
			continue
		}
		if only != nil {
			return nil
		}
		only = l
	}
	if only == nil || only.Path == "" || !c.saidMemcg {
		return nil
	}
	return only
}

func gap(l *signal.Level) int64 { return max(0, *l.LimitBytes-*l.UsageBytes) }
