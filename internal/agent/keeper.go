// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/history"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

const (
	// keeperBacklog bounds the deaths kept in memory while the history does
	// not take them; at some 4 KiB each they take 40 MiB at most.
	keeperBacklog = 10000
	// keeperRound is how many deaths are written in one transaction.
	// What is told of the counters goes with the last of them, so a part that
	// a crash leaves alone costs the knowledge of where the counters stood.
	keeperRound = 2048
	// keeperPatience is how long metrics wait for the history.
	keeperPatience = time.Second
	// keeperFirst is how long a history that refuses is left alone, doubled
	// each time up to keeperLast.
	keeperFirst = 250 * time.Millisecond
	keeperLast  = 5 * time.Second
)

// The names of what the agent keeps between runs beside the deaths.
const (
	stateBootID       = "boot_id"
	stateNodeKills    = "node_oom_kills"
	stateVMStat       = "vmstat_oom_kill"
	stateUnattributed = "unattributed_oom_kills"
	stateFolded       = "folded_deaths"
	stateFirstRun     = "first_run" // when it began, in nanoseconds since 1970
)

// archive is the history as the keeper uses it.
type archive interface {
	Keep(ctx context.Context, r history.Round) (history.Kept, error)
	Trouble() error
	Dropped() uint64
}

// audit is the machine's own count: its OOM kills and the unattributed ones
// over all runs, and its counter as it stood then.
type audit struct{ kills, unattributed, vmstat uint64 }

// waiting is a death, in its newest revision, on its way into the history.
type waiting struct {
	death  death.Death
	change metrics.Change
	since  time.Time
	source death.Source // that told it first; "" when that was told already
	let    bool         // it was told on without the history
}

// keeper writes deaths to the history and then tells them on. Whoever gives
// them never waits for it: what does not fit is counted and dropped. Counters
// and state are written along with the deaths that they are about.
type keeper struct {
	store   archive
	metrics *metrics.Metrics
	publish func()
	tell    func([]death.Death) // the sinks; it waits for nobody
	node    func() audit
	log     *slog.Logger
	bootID  string
	wake    chan struct{} // holds one: there is something to write
	alarm   chan struct{} // holds one: there is something to watch over
	ending  chan struct{} // closed: write what there is, and end

	mu      sync.Mutex
	backlog []*waiting // oldest first
	byID    map[string]*waiting
	written []*waiting        // what the writer has now
	orphans metrics.Change    // of the deaths that were dropped
	told    map[string]string // what these deaths tell of what the kernel counted
	latest  audit
	shown   audit             // what the history has, or what was let out
	saved   map[string]string // the state that the history has
	all     bool              // the history lacks counters and state that it had
	stale   time.Time         // since when state waits; zero: it does not
	taken   time.Time         // when the history last took something
	let     time.Time         // when metrics last went on without it
	watched bool              // somebody looks whether it is overdue
	failed  string            // why it takes nothing; "": it does

	dropped, errs atomic.Uint64
}

// newKeeper goes on from what the history has. It writes at once from where
// this run goes on.
func newKeeper(store archive, m *metrics.Metrics, state map[string]string, log *slog.Logger) *keeper {
	return &keeper{
		store: store, metrics: m, log: log, publish: func() {}, tell: func([]death.Death) {},
		wake: make(chan struct{}, 1), alarm: make(chan struct{}, 1), ending: make(chan struct{}),
		byID: map[string]*waiting{}, told: map[string]string{}, saved: maps.Clone(state), stale: time.Now(), watched: true,
		shown: audit{kills: number(state[stateNodeKills]), unattributed: number(state[stateUnattributed])},
	}
}

// give takes one round of deaths, and what the machine's counters say with
// them.
func (k *keeper) give(p progress) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for i := range p.deaths {
		k.add(&p.deaths[i], now)
	}
	for len(k.backlog) > 0 && len(k.backlog)+len(k.written) > keeperBacklog {
		k.drop()
	}
	maps.Copy(k.told, p.state)
	if k.latest = k.node(); k.stale.IsZero() {
		k.stale = now
	}
	poke(k.wake)
	if !k.watched {
		k.watched = true
		poke(k.alarm)
	}
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// add counts a death and puts it in line. A newer revision takes the place of
// an older one that still waits.
func (k *keeper) add(d *death.Death, now time.Time) {
	change := k.metrics.Take(d)
	if w := k.byID[d.ID]; w != nil {
		w.change.Join(change)
		w.death, w.let = *d, false
		return
	}
	w := &waiting{death: *d, change: change, since: now}
	if d.Revision == 1 && !d.Recovered && len(d.Evidence) > 0 {
		w.source = d.Evidence[0].Source
	}
	k.byID[d.ID] = w
	k.backlog = append(k.backlog, w)
}

// drop lets the oldest go. It stays counted.
func (k *keeper) drop() {
	w := k.backlog[0]
	k.backlog[0] = nil
	k.backlog = k.backlog[1:]
	delete(k.byID, w.death.ID)
	k.metrics.Orphan(&k.orphans, w.change)
	k.dropped.Add(1)
}

// end lets run write what there is, and return.
func (k *keeper) end() { close(k.ending) }

// run writes until end. It may hang with the history; watch does not.
func (k *keeper) run() {
	var watching sync.WaitGroup
	ended := make(chan struct{})
	watching.Go(func() { k.watch(ended) })
	defer watching.Wait()
	defer close(ended)
	ending, wait := k.ending, keeperFirst
	for {
		r, any := k.next()
		if !any && ending == nil {
			return
		}
		var retry <-chan time.Time
		if any {
			kept, err := k.store.Keep(context.Background(), r.Round)
			if err == nil {
				k.kept(r, kept.Anew)
				wait = keeperFirst
				continue
			}
			k.refused(r, err)
			if ending == nil {
				k.abandon()
				return
			}
			retry = time.After(wait)
			wait = min(2*wait, keeperLast)
		}
		for again := false; !again; {
			select {
			case <-k.wake:
				again = retry == nil // what is new waits with what is there
			case <-retry:
				again = true
			case <-ending:
				again, ending = true, nil
			}
		}
	}
}

// watch lets metrics go on when the history is overdue, until ended.
func (k *keeper) watch(ended <-chan struct{}) {
	for {
		var late <-chan time.Time
		if d := k.overdue(); d > 0 {
			late = time.After(d)
		}
		select {
		case <-late:
		case <-k.alarm:
		case <-ended:
			return
		}
	}
}

// abandon counts what a history that refuses at the end never got.
func (k *keeper) abandon() {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := len(k.backlog)
	k.dropped.Add(uint64(n))
	k.log.Error("ended while the history refused deaths; they are lost", "deaths", n, "err", k.failed)
}

// round is what is written in one transaction.
type round struct {
	history.Round
	batch   metrics.Batch
	orphans metrics.Change
	deaths  []*waiting
	told    map[string]string
	audit   audit
	began   time.Time
}

// next takes the oldest deaths out of the line. State comes with the last of
// them: it says that all before is there.
func (k *keeper) next() (round, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.backlog) == 0 && k.stale.IsZero() && !k.all && !k.metrics.Unkept() {
		return round{}, false
	}
	n := min(len(k.backlog), keeperRound)
	r := round{deaths: k.backlog[:n:n], orphans: k.orphans, audit: k.shown, began: time.Now()}
	k.orphans = metrics.Change{}
	k.backlog, k.written = k.backlog[n:], r.deaths
	change := metrics.Change{}
	change.Join(r.orphans)
	for _, w := range r.deaths {
		delete(k.byID, w.death.ID)
		r.Deaths = append(r.Deaths, w.death)
		change.Join(w.change)
	}
	r.batch = k.metrics.Prepare(change, k.all)
	for _, c := range r.batch.Counts {
		r.Counts = append(r.Counts, history.Count(c))
	}
	r.AllCounts = r.batch.All
	r.State = map[string]string{}
	k.set(r.State, stateFolded, strconv.FormatUint(r.batch.Folded, 10))
	if len(k.backlog) == 0 {
		k.stale = time.Time{}
		r.audit = k.latest
		r.told, k.told = k.told, map[string]string{}
		for name, value := range r.told {
			if name != stateFolded { // which comes with every round
				k.set(r.State, name, value)
			}
		}
		k.set(r.State, stateBootID, k.bootID)
		k.set(r.State, stateNodeKills, strconv.FormatUint(k.latest.kills, 10))
		k.set(r.State, stateVMStat, strconv.FormatUint(k.latest.vmstat, 10))
		k.set(r.State, stateUnattributed, strconv.FormatUint(k.latest.unattributed, 10))
	} else {
		// A part of the deaths without what they tell of the counters: should
		// this be the last that is written, nobody must go on from there.
		k.tellAgain(map[string]string{stateToldNode: k.saved[stateToldNode]})
		k.set(r.State, stateToldNode, "")
	}
	return r, true
}

// set adds what the history does not have.
func (k *keeper) set(state map[string]string, name, value string) {
	if k.saved[name] != value || k.all {
		state[name] = value
	}
}

// kept notes that the history has a round, and tells it on.
func (k *keeper) kept(r round, anew bool) {
	k.metrics.Kept(r.batch)
	k.mu.Lock()
	now := time.Now()
	k.written, k.shown, k.taken = nil, r.audit, now
	k.all = anew
	for name, value := range r.State {
		if k.saved[name] = value; value == "" {
			delete(k.saved, name)
		}
	}
	if anew {
		k.stale = now
		k.tellAgain(k.saved)
	}
	if k.failed != "" {
		k.failed = ""
		k.log.Info("history takes deaths again")
	}
	k.mu.Unlock()
	for _, w := range r.deaths {
		if w.source != "" {
			k.metrics.Detected(w.source, now.Sub(w.death.Time).Seconds())
		}
	}
	if len(r.deaths) > 0 {
		k.publish()
		k.tell(r.Deaths)
	}
}

// refused puts a round back in line, before what came meanwhile.
func (k *keeper) refused(r round, err error) {
	k.errs.Add(1)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.written = nil
	k.orphans.Join(r.orphans)
	k.tellAgain(r.told)
	for _, w := range r.deaths {
		if newer := k.byID[w.death.ID]; newer != nil {
			w.death, w.let = newer.death, newer.let
			w.change.Join(newer.change)
			newer.death.ID = "" // it is in the other now
		}
		k.byID[w.death.ID] = w
	}
	line := append(make([]*waiting, 0, len(r.deaths)+len(k.backlog)), r.deaths...)
	for _, w := range k.backlog {
		if w.death.ID != "" {
			line = append(line, w)
		}
	}
	k.backlog = line
	if k.stale.IsZero() {
		k.stale = r.began
	}
	k.trouble(err.Error())
}

// tellAgain puts state back in line, behind what came since. It needs the lock.
func (k *keeper) tellAgain(told map[string]string) {
	for name, value := range told {
		if _, newer := k.told[name]; !newer {
			k.told[name] = value
		}
	}
}

// trouble is noted under the lock.
func (k *keeper) trouble(why string) {
	if k.failed == "" {
		k.log.Error("history does not take deaths; they wait in memory", "err", why)
	}
	k.failed = why
}

// overdue lets metrics and sinks go on without the history when it took nothing for too
// long, and returns when to look again; 0: nothing waits.
func (k *keeper) overdue() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	oldest := k.stale
	for _, line := range [][]*waiting{k.backlog, k.written} {
		if len(line) > 0 && (oldest.IsZero() || line[0].since.Before(oldest)) {
			oldest = line[0].since
		}
	}
	if k.watched = !oldest.IsZero(); !k.watched {
		return 0
	}
	for _, t := range []time.Time{k.taken, k.let} {
		if t.After(oldest) {
			oldest = t
		}
	}
	if left := keeperPatience - time.Since(oldest); left > 0 {
		return left
	}
	if k.failed == "" {
		k.trouble("it does not answer since " + oldest.UTC().Format(time.RFC3339))
	}
	k.metrics.Release()
	k.tellOn()
	k.shown, k.let = k.latest, time.Now()
	return keeperPatience
}

// tellOn has the sinks told what waits. It needs the lock.
func (k *keeper) tellOn() {
	var late []death.Death
	for _, line := range [][]*waiting{k.written, k.backlog} {
		for _, w := range line {
			if !w.let {
				w.let = true
				late = append(late, w.death)
			}
		}
	}
	k.tell(late)
}

// failure is why deaths are not kept where they should be; "": they are.
func (k *keeper) failure() string {
	k.mu.Lock()
	failed := k.failed
	k.mu.Unlock()
	if why := k.store.Trouble(); why != nil && failed == "" {
		return why.Error()
	}
	return failed
}

// counted is what a scrape may show of the machine's own count.
func (k *keeper) counted() audit {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shown
}

// stat is the history's figures as a sink.
func (k *keeper) stat() metrics.SinkStat {
	up := k.failure() == ""
	k.mu.Lock()
	defer k.mu.Unlock()
	return metrics.SinkStat{
		Sink: "history", Up: up, QueueLength: len(k.backlog) + len(k.written),
		Dropped: k.dropped.Load() + k.store.Dropped(), Errors: k.errs.Load(),
	}
}
