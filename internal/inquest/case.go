// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/recorder/pattern"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxEvidence and maxProcesses bound one case; what is beyond is counted in
// the evidence's last line.
const (
	maxEvidence  = 64
	maxProcesses = 4096
)

// caseFile is one death while evidence comes in.
type caseFile struct {
	id        string
	revision  int
	at        time.Time
	lastAt    time.Time // of the last process
	observed  time.Time
	touched   time.Time
	dirty     bool
	last      *death.Death    // as last given out
	prior     *death.Death    // from before a restart
	restored  verdict.Verdict // what is left of prior says by itself
	keepUntil time.Time
	awaits    map[WantKind]time.Time // answers that it stays open for

	container *death.Container
	tenant    *tenant // that an engine told of; nil: by the container's names
	unit      string
	cgroupID  uint64
	taskMemcg string
	podCgroup string
	lateHome  bool // it was opened before it was known where it happened
	procs     []*process

	oomKilled   bool
	oom         death.OOM
	named       bool // the kernel named constraint and limit
	context     bool // the log's report is taken in
	hasReport   bool
	report      uint64
	logSeq      uint64 // record of the line that told of it first
	saidMemcg   bool
	saidGlobal  bool
	chain       []signal.Level
	chainAtKill bool
	triggerTID  int
	group       bool   // memory.oom.group at work
	groupCgroup string // whose flag it is
	invocation  *invocation
	countedOnly bool
	unbooked    bool   // no counter that we know of counted it
	weighed     bool   // stands for a counter's rise, though its cgroup was not told
	decided     bool   // the counters cannot tell more of where it was
	below       string // it is of a cgroup below this one, which is gone

	killer        *death.Killer
	killerRuntime bool
	daemon        string    // that killed before the kernel had to
	daemonAsked   time.Time // of the death that was asked about; zero: it was not
	askedID       string
	askedPath     string
	daemonWhy     string        // in its own words
	daemonLogged  *death.Killer // who wrote them to the journal
	daemonObeyed  bool          // by a signal other than SIGKILL, which was not what ended it
	sent          []sentSignal  // to its first process
	exit          *death.Exit
	ended         bool
	endedAt       time.Time // when its first process left, or its cgroup went
	ranSince      time.Time // not before the end of its last run
	runKnown      bool
	began         time.Time // when its last run did, as an engine tells
	asks          []ask     // of its run, of which the tenant has forgotten
	first         firstProcess
	by            map[death.Source]time.Time // who told of its end, and when
	words         words
	engineLine    map[death.Source]int // of evidence, by who said it
	recheck       time.Time            // when what did not come by then will not come
	logAsked      time.Time            // of the end that was asked about; zero: it was not
	log           *signal.ContainerLog
	logFrom       death.Source // in whose name that was read
	pod           *podFile     // told of as a whole; nil: no
	eventsAsked   time.Time    // of the end that was asked about; zero: it was not
	eventsTries   int          // answers so far
	eventsAt      time.Time    // not to be asked for before
	events        *signal.PodEvents
	system        systemWord
	memoryAsked   time.Time // of the death that was asked about; zero: it was not
	memory        *death.Memory
	limits        []signal.LimitReading // of its cgroup
	growth        pattern.Growth        // of a leak
	peak, shmem   *int64                // the most of the working set, and tmpfs at the end
	kernelPeak    *int64                // the most of all, with the page cache
	escaped       *escape
	stray         *stray // who died outside of its container's cgroup
	strayAsked    bool
	waited        bool // that time has passed
	recovered     bool

	evidence []death.Evidence
	unshown  int
	place    seriesPlace
}

// open begins a case at the time of s.
func (q *Inquest) open(s signal.Signal, key string) *caseFile {
	at := s.Time
	if at.IsZero() {
		at = s.Observed
	}
	c := &caseFile{
		id:        q.newID(key, at),
		at:        at,
		observed:  s.Observed,
		touched:   q.now,
		recovered: s.Recovered,
		unbooked:  !q.ledger.books(s),
	}
	q.cases = append(q.cases, c)
	return c
}

// idGrain is how many seconds share an id for one pid: sources place a kill
// milliseconds apart, and whoever sees it must come to the same id.
const idGrain = 10

// newID makes the id of a death from the boot, the pid and the time. It is
// never given twice: a pid that comes back at once gets the next.
func (q *Inquest) newID(key string, at time.Time) string {
	for n := 0; ; n++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%d", q.opts.BootID, key, at.Unix()/idGrain, n))
		id := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:10]))
		if _, taken := q.ids[id]; !taken {
			q.ids[id] = q.now
			return id
		}
	}
}

// add puts a process among the dead of c.
func (q *Inquest) add(c *caseFile, p *process) {
	if len(c.procs) >= maxProcesses {
		c.unshown++
		return
	}
	p.owner = c
	p.seen = q.now
	if p.at.After(c.lastAt) {
		c.lastAt = p.at
	}
	c.procs = append(c.procs, p)
	q.dead.put(p)
	if p.Init != nil && *p.Init && c.container != nil {
		c.ended = true
	}
}

// put places c: names the owner from the path of the victim's cgroup.
func (q *Inquest) place(c *caseFile, g signal.Cgroup) {
	if g.ID != 0 {
		c.cgroupID = g.ID
	}
	path := q.roster.path(g)
	if path == "" || c.taskMemcg != "" {
		c.lateHome = c.lateHome || c.taskMemcg == ""
		return
	}
	c.taskMemcg = path
	var forged string
	if c.container, c.unit, c.podCgroup, forged = q.owner(path); forged != "" {
		c.note(signal.Signal{Time: c.at, Observed: q.now, Source: death.SourceCgroup},
			"%s is named like %s, which lives elsewhere: the name is not believed", death.Printable(path), death.Printable(forged))
	}
	q.housed(c)
}

// housed takes in what c's container means for what was told of c before.
func (q *Inquest) housed(c *caseFile) {
	for _, p := range c.procs {
		q.learnInit(c, p)
	}
	if c.lateHome && c.container != nil && c.initPID() == 0 && len(c.by) == 0 {
		c.exit = nil // the victim's: it was taken for one in no container
	}
}

// home is the cgroup in which c happened.
func (q *Inquest) home(c *caseFile) signal.Cgroup {
	return q.resolve(signal.Cgroup{ID: c.cgroupID, Path: c.taskMemcg})
}

// resolve adds to a cgroup's name or id the other one, if it is known.
func (q *Inquest) resolve(g signal.Cgroup) signal.Cgroup {
	if e := q.roster.find(g); e != nil {
		if g.ID == 0 {
			g.ID = e.ID
		}
		if g.Path == "" {
			g.Path = e.Path
		}
	}
	return g
}

// learnInit asks the roster whether p was its container's first process,
// where no source could tell.
func (q *Inquest) learnInit(c *caseFile, p *process) {
	if c.container == nil {
		return
	}
	if p.Init == nil {
		if first := q.firstThen(c); first != 0 && (p.PID != 0 || p.tid == first) {
			is := first == p.PID || first == p.tid
			p.Init = &is
		} else if t := q.tenantOf(c); t != nil && t.pid != 0 && t.pid == p.PID {
			p.Init = new(true)
		}
	}
	if p.Init != nil && *p.Init {
		c.ended = true
	}
}

// relearn does so once more, where an engine may have said since when the
// container runs, or whose the killer's cgroup is, and notes which run ended where
// none knew the container then.
func (q *Inquest) relearn(c *caseFile) {
	if c.ended && !c.endedAt.IsZero() && !c.runKnown {
		q.endsRun(c, c.endedAt)
	}
	if c.killerRuntime { // no runtime lives in a container
		of, _, _, _ := q.owner(c.killer.Cgroup)
		c.killerRuntime = of == nil
	}
	if !c.recovered {
		return
	}
	for _, p := range c.procs {
		q.learnInit(c, p)
	}
}

// firstThen is the first process of c's container when c happened; 0: not known.
// What is read after the fact may be of a run before: engines start a container
// again in a cgroup of the same name, only Kubernetes in another.
func (q *Inquest) firstThen(c *caseFile) int {
	e := q.roster.byPath[c.container.Cgroup]
	if e == nil {
		return 0
	}
	if c.recovered && c.container.Pod == nil {
		t := q.tenantOf(c)
		if t == nil || t.started.IsZero() || t.started.After(c.at.Add(-drift)) {
			return 0
		}
	}
	return e.initPID
}

// learnFirst makes t its container's first process where the engine says so: one
// in a pid namespace that is not the container's own is nothing that the kernel
// tells apart.
func (q *Inquest) learnFirst(t *signal.Task) {
	if t.PID == 0 || t.Init != nil && *t.Init {
		return
	}
	c, _, _, _ := q.owner(q.roster.path(t.Cgroup))
	if its := q.tenants.of(c); its != nil && its.pid == t.PID {
		t.Init = new(true)
	}
}

// sameOwner tells whether the cgroup at path belongs to c's container, or, for
// what is in no container, whether it is the very same cgroup.
func (c *caseFile) sameOwner(path string) bool {
	switch {
	case path == "":
		return false
	case c.container != nil:
		return c.livedAt(path)
	}
	return c.taskMemcg == path
}

// took tells whether pid is among the dead already.
func (c *caseFile) took(pid int) bool {
	for _, p := range c.procs {
		if p.PID == pid && pid != 0 {
			return true
		}
	}
	return false
}

// initKnown tells whether it is settled if one of the dead was the container's
// first process.
func (c *caseFile) initKnown() bool {
	for _, p := range c.procs {
		if p.Init == nil {
			return false
		}
	}
	return len(c.procs) > 0
}

// note adds a line of evidence.
func (c *caseFile) note(s signal.Signal, format string, args ...any) {
	if len(c.evidence) >= maxEvidence {
		c.unshown++
		return
	}
	at := s.Time
	if at.IsZero() {
		at = s.Observed
	}
	e := death.Evidence{Time: at.UTC(), Source: s.Source, Text: fmt.Sprintf(format, args...)}
	if c.prior != nil && slices.ContainsFunc(c.evidence, func(o death.Evidence) bool { return sameLine(o, e) }) {
		return // an engine is asked again for what it has told
	}
	c.evidence = append(c.evidence, e)
}

func sameLine(a, b death.Evidence) bool {
	return a.Time.Equal(b.Time) && a.Source == b.Source && a.Text == b.Text
}
