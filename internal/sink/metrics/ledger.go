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
	// keepGone is how long the series of an owner that is gone stay.
	keepGone = 24 * time.Hour
	// keepGoneFull is the same when there is no room for new ones. It is
	// longer than any usual scrape interval, so that the last value was seen.
	keepGoneFull = 10 * time.Minute
)

// tally is what is counted under one key.
type tally struct {
	kills, ends uint64
	last        time.Time // the latest death
	touched     time.Time // when it last changed, or its owner was last known to live
	shown       bool      // a scrape has shown it as it is
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
	max     int
	now     func() time.Time
	tallies map[key]*tally
	deaths  map[string]*counted
	order   []string // ids of deaths, a ring from the oldest at next
	next    int
	scrape  uint64 // how many scrapes there were
	folded  uint64
	swept   time.Time
}

func newLedger(maxSeries int, now func() time.Time) *ledger {
	return &ledger{max: maxSeries, now: now, tallies: make(map[key]*tally), deaths: make(map[string]*counted)}
}

// take counts what d adds to what its earlier revisions said.
func (l *ledger) take(d *death.Death) {
	c, known := l.deaths[d.ID]
	if !known {
		k, folded := l.room(keyOf(d))
		if folded {
			l.folded++
		}
		c = &counted{key: k, scrape: l.scrape, before: l.tally(k).last}
		l.remember(d.ID, c)
	} else {
		l.move(c, keyOf(d), d.Time)
	}
	t := l.tally(c.key)
	if n := d.OOMKills() - c.kills; n > 0 {
		t.kills += uint64(n)
		c.kills += n
		c.freshKills += n
	}
	if d.Subject == death.SubjectContainer && !c.ended {
		t.ends++
		c.ended, c.freshEnd = true, true
	}
	if d.Time.After(t.last) {
		t.last = d.Time
	}
	t.touched, t.shown = l.now(), false
}

// move takes what no scrape has shown yet to another key, for a counter that
// was shown must not go down.
func (l *ledger) move(c *counted, to key, died time.Time) {
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
	from.kills -= uint64(c.freshKills)
	dest.kills += uint64(c.freshKills)
	if c.freshEnd {
		from.ends--
		dest.ends++
	}
	if c.freshKills == c.kills && c.freshEnd == c.ended && from.last.Equal(died) {
		from.last = c.before
	}
	if from.kills == 0 && from.ends == 0 {
		delete(l.tallies, c.key)
	}
	c.key, c.before = to, dest.last
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
		if t.shown && t.touched.Before(oldest) {
			delete(l.tallies, k)
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
	if len(l.order) < maxRemembered {
		l.order = append(l.order, id)
		return
	}
	delete(l.deaths, l.order[l.next])
	l.order[l.next] = id
	l.next = (l.next + 1) % maxRemembered
}
