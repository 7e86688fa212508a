// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Contained is a container that lives: its own cgroup and its first process.
type Contained struct {
	Cgroup  signal.Cgroup
	InitPID int
}

// EscapesOptions set up an Escapes.
type EscapesOptions struct {
	Roots  host.Roots
	Logger *slog.Logger
	// Containers lists those that live, also a pod's own.
	Containers func() []Contained
	// Found is told after each look of each container that has processes
	// outside, and once when it has none any more; nil: nobody is.
	Found func(Escaped)
	// Interval is how often all processes are looked at; 0: one minute.
	Interval time.Duration
	// Recheck is after how long one that was found outside must still be
	// there; 0: one second.
	Recheck time.Duration

	// most bounds the processes found outside; 0: 4096. A test has fewer.
	most int
}

// Escapes finds the processes that are in a container, by its pid namespace,
// and live outside its cgroup, so that its limits do not hold for them: systemd
// in a container may put them there, or nsenter from outside.
//
// A pid namespace belongs to the container whose first process is its first.
// Where several containers share one, as in a pod with shareProcessNamespace,
// a process is outside when it is in the cgroup of none of them. Cost: for
// each process a readlink, some 3 us, once a minute (each ten seconds at most, where
// Soon is called) and in parts; CAP_SYS_PTRACE
// for processes of others.
type Escapes struct {
	opt EscapesOptions
	log *slog.Logger

	hurry chan struct{}

	mu   sync.Mutex
	last []Escaped
}

// Escaped is what was found of one container.
type Escaped struct {
	Contained
	PIDNS uint64
	// Count is of processes, at most 4096 of all containers. 0: none.
	Count int
	// HeldBytes is what those of them hold of which it is known.
	HeldBytes int64
	// Examples are up to five of them.
	Examples []signal.EscapedProcess
}

const (
	walkPart    = 256 // processes looked at without a pause
	walkPause   = 20 * time.Millisecond
	maxOutside  = 4096
	maxExamples = 5
)

// NewEscapes returns an Escapes; nothing is read before Run.
func NewEscapes(opt EscapesOptions) *Escapes {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Interval <= 0 {
		opt.Interval = time.Minute
	}
	if opt.Recheck <= 0 {
		opt.Recheck = time.Second
	}
	if opt.most <= 0 {
		opt.most = maxOutside
	}
	return &Escapes{opt: opt, log: opt.Logger.With("component", "escapes"), hurry: make(chan struct{}, 1)}
}

// Last returns what was found last, of each container that could be looked at.
func (e *Escapes) Last() []Escaped {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last
}

// Soon lets the next look come a twelfth of the interval from now, or after
// the last: something has happened to a container.
func (e *Escapes) Soon() {
	select {
	case e.hurry <- struct{}{}:
	default:
	}
}

// Run looks until ctx is done, first after a twelfth of the interval. Only
// without a memory hierarchy does it end before, with an error.
func (e *Escapes) Run(ctx context.Context) error {
	hier, err := e.opt.Roots.MemoryHierarchy()
	if err != nil {
		return err
	}
	trouble := ""
	for first := true; e.wait(ctx, first); first = false {
		w := walk{ctx: ctx, roots: e.opt.Roots, hier: hier, recheck: e.opt.Recheck, most: e.opt.most}
		found, err := w.run(e.opt.Containers())
		if ctx.Err() != nil {
			break
		}
		if err != nil && err.Error() != trouble {
			trouble = err.Error()
			e.log.Warn("processes outside of their containers' cgroups may be missed", "err", err)
		}
		e.tell(found)
	}
	return nil
}

// wait waits until the next look is due; false where ctx ends before.
func (e *Escapes) wait(ctx context.Context, first bool) bool {
	early := e.opt.Interval / 12
	if !pause(ctx, early) || first {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(e.opt.Interval - early)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	case <-e.hurry:
		return pause(ctx, early)
	}
}

// tell keeps what was found, and gives on what says something.
func (e *Escapes) tell(found []Escaped) {
	e.mu.Lock()
	before := e.last
	e.last = found
	e.mu.Unlock()
	if e.opt.Found == nil {
		return
	}
	had := map[signal.Cgroup]bool{}
	for _, x := range before {
		had[x.Cgroup] = x.Count > 0
	}
	for _, x := range found {
		if x.Count > 0 || had[x.Cgroup] {
			e.opt.Found(x)
		}
	}
}

// Namespace returns the container whose pid namespace this is, and when its
// first process began. Both are not known where that ends meanwhile.
func (e *Escapes) Namespace(pidns uint64) (of Contained, since time.Time, known bool) {
	hier, err := e.opt.Roots.MemoryHierarchy()
	if err != nil {
		return Contained{}, time.Time{}, false
	}
	w := walk{roots: e.opt.Roots, hier: hier}
	w.place(e.opt.Containers())
	s := w.spaces[pidns]
	if s == nil {
		return Contained{}, time.Time{}, false
	}
	of = w.found[s.owner].Contained
	began, err := e.opt.Roots.Started(of.InitPID)
	if err != nil {
		return Contained{}, time.Time{}, false
	}
	clock, err := host.BoottimeClock()
	if err != nil {
		return Contained{}, time.Time{}, false
	}
	return of, clock.Wall(began), true
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// walk is one look at all processes.
type walk struct {
	ctx     context.Context
	roots   host.Roots
	hier    host.Hierarchy
	recheck time.Duration
	most    int

	found  []Escaped
	spaces map[uint64]*space // by inode of the pid namespace
	err    error
}

// space is a pid namespace with the containers in it.
type space struct {
	owner   int // in found
	cgroups []string
}

type suspect struct {
	pid int
	ns  uint64
}

var errSuspects = errors.New("too many processes outside")

func (w *walk) run(containers []Contained) ([]Escaped, error) {
	w.place(containers)
	if len(w.spaces) == 0 {
		return nil, w.err
	}
	var suspects []suspect
	look := func(pid int) {
		ns, err := w.roots.PIDNS(pid)
		if err != nil {
			w.trouble(err)
			return
		}
		if s := w.spaces[ns]; s != nil && w.outside(pid, s) != "" {
			suspects = append(suspects, suspect{pid, ns})
		}
	}
	onward := func() bool { return len(suspects) <= w.most && pause(w.ctx, walkPause) }
	if err := w.roots.EachPID(walkPart, look, onward); err != nil {
		return nil, err
	}
	if len(suspects) > w.most {
		w.err, suspects = errSuspects, suspects[:w.most]
	}
	slices.SortFunc(suspects, func(a, b suspect) int { return a.pid - b.pid })
	// One that was on its way, into a new container for example, is there by now.
	if len(suspects) > 0 && pause(w.ctx, w.recheck) {
		for _, s := range suspects {
			w.confirm(s)
		}
	}
	return w.found, w.err
}

// place finds out which pid namespaces are the containers'.
func (w *walk) place(containers []Contained) {
	w.spaces = map[uint64]*space{}
	guests := map[uint64][]string{}
	for _, c := range containers {
		if _, err := os.Stat(w.hier.Dir(c.Cgroup.Path)); err != nil {
			w.trouble(err) // it has gone, and its first process's id is another's
			continue
		}
		ns, err := w.roots.PIDNS(c.InitPID)
		if err != nil {
			w.trouble(err)
			continue
		}
		ids, err := w.roots.TaskIDs(c.InitPID)
		switch {
		case err != nil:
			w.trouble(err)
		case ids.First() && w.spaces[ns] == nil:
			w.found = append(w.found, Escaped{Contained: c, PIDNS: ns})
			w.spaces[ns] = &space{owner: len(w.found) - 1, cgroups: []string{c.Cgroup.Path}}
		default:
			guests[ns] = append(guests[ns], c.Cgroup.Path)
		}
	}
	for ns, paths := range guests {
		if s := w.spaces[ns]; s != nil {
			s.cgroups = append(s.cgroups, paths...)
		}
	}
}

// outside returns the cgroup of a process that is in none of its container's,
// "" where it is, or where that is not known.
func (w *walk) outside(pid int, s *space) string {
	at, err := w.roots.Whereabouts(pid, w.hier)
	if err != nil {
		w.trouble(err)
		return ""
	}
	if slices.ContainsFunc(s.cgroups, func(c string) bool { return at == c || strings.HasPrefix(at, c+"/") }) {
		return ""
	}
	return at
}

func (w *walk) confirm(s suspect) {
	in := w.spaces[s.ns]
	at := w.outside(s.pid, in)
	if at == "" {
		return
	}
	if ns, err := w.roots.PIDNS(s.pid); err != nil || ns != s.ns {
		return // another process by now
	}
	of := &w.found[in.owner]
	of.Count++
	var held *int64
	if n, err := w.roots.Held(s.pid); err == nil { // it may have ended by now
		held = &n
		of.HeldBytes += n
	}
	if len(of.Examples) < maxExamples {
		comm, err := w.roots.Comm(s.pid)
		if err != nil {
			w.trouble(err)
		}
		of.Examples = append(of.Examples, signal.EscapedProcess{PID: s.pid, Comm: comm, Cgroup: at, HeldBytes: held})
	}
}

// trouble keeps the first error that is not of a process that has gone.
func (w *walk) trouble(err error) {
	if w.err == nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, host.ErrWhereabouts) && !ended(err) {
		w.err = err
	}
}
