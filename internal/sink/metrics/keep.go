// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// Count is the value of the counters of one set of labels. Counts that are
// kept over a restart let the counters go on.
type Count struct {
	Namespace, Pod, Container string
	Cause                     death.Cause
	OOMKills, Terminations    uint64
	Last                      time.Time
}

// compactAt is how long a Change may grow before its steps are summed up.
const compactAt = 1024

// step is what is added to a tally; a move takes from another.
type step struct{ kills, ends int64 }

type keyStep struct {
	key
	of *counted // nil: of several deaths
	step
}

// Change is what deaths added to the counters. What is in a Change is shown
// once it was kept (Kept), or let out (Release).
type Change struct{ named, byID part }

// part is what a Change has for one ledger.
type part struct {
	steps  []keyStep
	summed int
	folded uint64
}

// Join adds what another Change holds.
func (c *Change) Join(other Change) {
	c.named.join(other.named)
	c.byID.join(other.byID)
}

func (p *part) join(other part) {
	p.steps = append(p.steps, other.steps...)
	p.folded += other.folded
}

// Orphan adds to c a Change whose deaths will not be kept. What c holds is
// kept as one, so that it needs little room however many these are.
func (m *Metrics) Orphan(c *Change, other Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ledger.orphan(&c.named, other.named)
	m.byID.orphan(&c.byID, other.byID)
}

func (l *ledger) orphan(p *part, other part) {
	for _, s := range other.steps {
		t := l.tally(s.key)
		t.await(s.of, step{-s.kills, -s.ends})
		t.await(nil, s.step)
		p.steps = append(p.steps, keyStep{s.key, nil, s.step})
	}
	p.folded += other.folded
	if len(p.steps) > 2*p.summed+compactAt {
		sums := p.sums()
		p.steps = p.steps[:0:0]
		for k, s := range sums {
			p.steps = append(p.steps, keyStep{k, nil, s})
		}
		p.summed = len(p.steps)
	}
}

// Empty tells whether it changes nothing.
func (c *Change) Empty() bool { return c.named.empty() && c.byID.empty() }

func (p *part) empty() bool { return len(p.steps) == 0 && p.folded == 0 }

func (p *part) sums() map[key]step {
	sums := make(map[key]step, len(p.steps))
	for _, s := range p.steps {
		sum := sums[s.key]
		sums[s.key] = step{sum.kills + s.kills, sum.ends + s.ends}
	}
	return sums
}

// Batch is a Change on its way into the history.
type Batch struct {
	// Counts are the changed counters as they will stand. One that counts
	// nothing is to be forgotten.
	Counts []Count
	// All: there are no others.
	All bool
	// Folded is the value of coroner_folded_deaths_total.
	Folded uint64

	named, byID written
}

// written is what a Batch has of one ledger.
type written struct {
	steps []keyStep
	gone  []key
}

// Prepare gives what is to be kept together with the deaths of a Change; with
// all, of every counter. One Batch after the other: Kept, or never to be kept.
func (m *Metrics) Prepare(c Change, all bool) Batch {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := Batch{All: all || m.ledger.rewrite || m.byID.rewrite, Folded: m.ledger.folded.kept + c.named.folded}
	b.named = m.ledger.prepare(&b, c.named)
	b.byID = m.byID.prepare(&b, c.byID)
	return b
}

func (l *ledger) prepare(b *Batch, p part) written {
	w := written{steps: p.steps}
	sums := p.sums()
	for k := range l.gone {
		w.gone = append(w.gone, k)
		if _, back := sums[k]; !back && !b.All {
			b.Counts = append(b.Counts, k.count(l.kept(k), time.Time{}))
		}
	}
	if b.All {
		for k, t := range l.tallies {
			if _, changes := sums[k]; !changes && t.kept != (pair{}) {
				b.Counts = append(b.Counts, k.count(t.kept, t.last))
			}
		}
	}
	for k, s := range sums {
		var last time.Time
		if t := l.tallies[k]; t != nil {
			last = t.last
		}
		b.Counts = append(b.Counts, k.count(l.kept(k).plus(s.kills, s.ends), last))
	}
	return w
}

// Kept says that the history has a Batch: it is shown from now on.
func (m *Metrics) Kept(b Batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ledger.wrote(b.named, b.All)
	m.byID.wrote(b.byID, b.All)
	m.ledger.folded.kept = b.Folded
}

func (l *ledger) wrote(w written, all bool) {
	for _, s := range w.steps {
		t := l.tally(s.key)
		t.kept = t.kept.plus(s.kills, s.ends)
		t.await(s.of, step{-s.kills, -s.ends})
		t.shownLast = t.last
		if len(t.pending) == 0 {
			t.freed = pair{}
		}
		l.tidy(s.key, t)
	}
	for _, k := range w.gone {
		delete(l.gone, k)
	}
	if all {
		l.rewrite = false
	}
}

// Release lets out what waits for the history: it does not answer. After a
// kill -9 these counts may be lower for a while.
func (m *Metrics) Release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ledger.release()
	m.byID.release()
}

func (l *ledger) release() {
	l.scrape++ // what is out does not move any more
	for _, t := range l.tallies {
		if len(t.pending) > 0 {
			t.freed = t.taken
		}
		t.shownLast = t.last
	}
	l.folded.freed = l.folded.taken
}

// Unkept tells whether counters were dropped that the history still has, or
// has others than these.
func (m *Metrics) Unkept() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ledger.unkept() || m.byID.unkept()
}

func (l *ledger) unkept() bool { return l.rewrite || len(l.gone) > 0 }

// Seed lets the counters go on from what an earlier run kept. It comes before
// the first Take and the first scrape.
func (m *Metrics) Seed(counts []Count, folded uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ledger.folded.taken, m.ledger.folded.kept = folded, folded
	// The one for too many takes no other's place.
	slices.SortFunc(counts, func(a, b Count) int {
		return cmp.Compare(rank(a), rank(b))
	})
	for _, c := range counts {
		if c.Cause == causeOOMs {
			m.byID.seed(c)
		} else {
			m.ledger.seed(c)
		}
	}
}

func (l *ledger) seed(c Count) {
	k, elsewhere := l.room(key{owner{label(c.Namespace), label(c.Pod), label(c.Container)}, death.Cause(label(string(c.Cause)))})
	l.rewrite = l.rewrite || elsewhere
	t := l.tally(k)
	t.taken = t.taken.plus(int64(c.OOMKills), int64(c.Terminations))
	t.kept = t.taken
	if c.Last.After(t.last) {
		t.last, t.shownLast = c.Last, c.Last
	}
	t.touched = l.now()
}

// Remember says that these deaths are in the counters already, as far as they
// are known here: their later revisions add only what is new.
func (m *Metrics) Remember(deaths []death.Death) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range deaths {
		m.ledger.recall(&deaths[i])
		m.byID.recall(&deaths[i])
	}
}

func (l *ledger) recall(d *death.Death) {
	to, ok := l.key(d)
	if _, known := l.deaths[d.ID]; known || !ok {
		return
	}
	k, _ := l.room(to)
	l.remember(d.ID, &counted{key: k, kills: d.OOMKills(), ended: d.Subject == death.SubjectContainer, scrape: l.scrape})
}

func (l *ledger) kept(k key) pair {
	if t := l.tallies[k]; t != nil {
		return t.kept
	}
	return pair{}
}

func (k key) count(p pair, last time.Time) Count {
	return Count{k.namespace, k.pod, k.container, k.cause, p.kills, p.ends, last}
}

func rank(c Count) int {
	if c.Container == foldedContainer {
		return 1
	}
	return 0
}
