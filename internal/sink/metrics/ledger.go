// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

const (
	// maxRemembered bounds the deaths whose amendments are recognised. An
	// amendment comes within seconds; a storm of 10,000 kills fits.
	maxRemembered = 50_000
	// maxRememberedByID is the same for container_ooms alone.
	maxRememberedByID = 10_000
	// keepGone is how long the series of an owner that is gone stay.
	keepGone = 24 * time.Hour
	// keepGoneFull is the same when there is no room for new ones. It is
	// longer than any usual scrape interval, so that the last value was seen.
	keepGoneFull = 10 * time.Minute
)

// pair is a number of OOM kills and of containers' ends.
type pair struct{ kills, ends uint64 }

// tally is what is counted under one key.
type tally struct {
	// taken is all that was counted; kept is what of it the history has, and
	// freed what was let out without it.
	taken, kept, freed pair
	// pending is what is between taken and kept, by death. A death whose count
	// moved away after it was kept has less than 0 here.
	pending         map[*counted]step
	last, shownLast time.Time // the latest death
	touched         time.Time // when it last changed, or its owner was last known to live
	shown           bool      // a scrape has shown it as it is
}

// visible is what a scrape shows: what the history has now, and will have
// after each of the deaths that wait, in whatever order they are kept.
func (t *tally) visible() pair {
	least := t.kept
	for _, s := range t.pending {
		least = least.plus(min(0, s.kills), min(0, s.ends))
	}
	return pair{max(least.kills, t.freed.kills), max(least.ends, t.freed.ends)}
}

// await notes what waits for the history, or no longer does.
func (t *tally) await(c *counted, s step) {
	if t.pending == nil {
		t.pending = make(map[*counted]step)
	}
	sum := step{t.pending[c].kills + s.kills, t.pending[c].ends + s.ends}
	if sum == (step{}) {
		delete(t.pending, c)
	} else {
		t.pending[c] = sum
	}
}

// counted is what one death added, so that its amendments add only the rest.
type counted struct {
	key   key
	kills int
	ended bool
	// What a scrape has not shown yet, and can still move to another key.
	scrape     uint64
	freshKills int
	freshEnd   bool
	before     time.Time // tally.last without this death
}

// ledger counts deaths: every killed process once, every container's end
// once, whatever revisions say it. It is not safe for concurrent use.
type ledger struct {
	key     func(d *death.Death) (k key, ok bool)
	max     int
	ring    int // how many deaths are remembered
	now     func() time.Time
	tallies map[key]*tally
	deaths  map[string]*counted
	order   []string // ids of deaths, a ring from the oldest at next
	next    int
	scrape  uint64 // how many scrapes and releases there were
	folded  struct{ taken, kept, freed uint64 }
	gone    map[key]struct{} // swept, and still in the history
	rewrite bool             // what the history has is not what is here
	swept   time.Time
}

func newLedger(maxSeries, ring int, now func() time.Time, keyOf func(*death.Death) (key, bool)) *ledger {
	return &ledger{
		key: keyOf, max: maxSeries, ring: ring, now: now,
		tallies: make(map[key]*tally), deaths: make(map[string]*counted), gone: make(map[key]struct{}),
	}
}

// take counts what d adds to what its earlier revisions said.
func (l *ledger) take(d *death.Death) (ch part) {
	to, ok := l.key(d)
	if !ok {
		return ch
	}
	c, known := l.deaths[d.ID]
	if !known {
		k, folded := l.room(to)
		if folded {
			l.folded.taken++
			ch.folded++
		}
		c = &counted{key: k, scrape: l.scrape, before: l.tally(k).last}
		l.remember(d.ID, c)
	} else {
		l.move(c, to, d.Time, &ch)
	}
	t := l.tally(c.key)
	added := step{}
	if n := d.OOMKills() - c.kills; n > 0 {
		t.taken.kills += uint64(n)
		c.kills += n
		c.freshKills += n
		added.kills = int64(n)
	}
	if d.Subject == death.SubjectContainer && !c.ended {
		t.taken.ends++
		c.ended, c.freshEnd = true, true
		added.ends = 1
	}
	if d.Time.After(t.last) {
		t.last = d.Time
	}
	t.touched, t.shown = l.now(), false
	t.await(c, added)
	ch.steps = append(ch.steps, keyStep{c.key, c, added}) // also without a count, for its time
	return ch
}

// move takes what no scrape has shown yet to another key, for a counter that
// was shown must not go down.
func (l *ledger) move(c *counted, to key, died time.Time, ch *part) {
	if c.scrape != l.scrape {
		c.scrape, c.freshKills, c.freshEnd = l.scrape, 0, false
	}
	if to == c.key || c.key.container == foldedContainer {
		return
	}
	to, folded := l.room(to)
	if folded {
		return // it has a place already, and a better one
	}
	from := l.tally(c.key)
	dest := l.tally(to)
	if moved := c.fresh(); moved != (step{}) {
		back := step{-moved.kills, -moved.ends}
		from.taken, dest.taken = from.taken.plus(back.kills, back.ends), dest.taken.plus(moved.kills, moved.ends)
		from.await(c, back)
		dest.await(c, moved)
		ch.steps = append(ch.steps, keyStep{c.key, c, back}, keyStep{to, c, moved})
	}
	if c.freshKills == c.kills && c.freshEnd == c.ended && from.last.Equal(died) {
		from.last = c.before
	}
	l.tidy(c.key, from)
	c.key, c.before = to, dest.last
}

// fresh is what no scrape has shown.
func (c *counted) fresh() step {
	s := step{kills: int64(c.freshKills)}
	if c.freshEnd {
		s.ends = 1
	}
	return s
}

// tidy drops a tally that says nothing, here or in the history.
func (l *ledger) tidy(k key, t *tally) {
	if t.taken == (pair{}) && t.kept == (pair{}) && len(t.pending) == 0 && t.last.IsZero() {
		delete(l.tallies, k)
	}
}

func (p pair) plus(kills, ends int64) pair {
	return pair{uint64(int64(p.kills) + kills), uint64(int64(p.ends) + ends)}
}

// room gives the key to count under: k, or the one for too many.
func (l *ledger) room(k key) (_ key, folded bool) {
	if _, ok := l.tallies[k]; ok || len(l.tallies) < l.max {
		return k, false
	}
	if now := l.now(); now.Sub(l.swept) >= time.Minute {
		l.swept = now
		l.sweep(keepGoneFull)
	}
	if len(l.tallies) < l.max {
		return k, false
	}
	return key{owner{container: foldedContainer}, k.cause}, true
}

// sweep drops the tallies that were shown and have not changed for so long.
func (l *ledger) sweep(keep time.Duration) {
	oldest := l.now().Add(-keep)
	for k, t := range l.tallies {
		if t.shown && len(t.pending) == 0 && t.touched.Before(oldest) {
			delete(l.tallies, k)
			l.gone[k] = struct{}{}
		}
	}
}

func (l *ledger) tally(k key) *tally {
	t := l.tallies[k]
	if t == nil {
		t = &tally{}
		l.tallies[k] = t
	}
	return t
}

// remember keeps c under its death's id and forgets the oldest beyond the bound.
func (l *ledger) remember(id string, c *counted) {
	l.deaths[id] = c
	if len(l.order) < l.ring {
		l.order = append(l.order, id)
		return
	}
	delete(l.deaths, l.order[l.next])
	l.order[l.next] = id
	l.next = (l.next + 1) % l.ring
}
