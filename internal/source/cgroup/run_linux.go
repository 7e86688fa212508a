// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// ErrGone is returned when the memory hierarchy is unmounted.
var ErrGone = errors.New("the memory hierarchy is no longer mounted")

// Run finds the tree, tells all of it, then says SourceState up, and follows
// it until ctx is done. Where the counters stand, the machine's too, is told
// once at the start, with nothing added.
func (s *Source) Run(ctx context.Context, emit func(signal.Signal)) error {
	l := newLoop(ctx, s.opt, emit)
	err := l.run()
	l.close()
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		l.say(signal.SourceState{Reason: err.Error()})
	}
	return err
}

func newLoop(ctx context.Context, opt Options, emit func(signal.Signal)) *loop {
	return &loop{
		ctx: ctx, opt: opt, emit: emit, now: time.Now(),
		log:      opt.Logger.With("component", string(death.SourceCgroup)),
		tree:     tree{byWD: map[int32]*node{}},
		limbo:    map[uint64]missing{},
		seeks:    map[*node]attempt{},
		levels:   map[*node]signal.Level{},
		reasons:  map[string]string{},
		troubles: map[string]bool{},
	}
}

// loop is the state of one Run; one goroutine owns it.
type loop struct {
	ctx  context.Context
	opt  Options
	emit func(signal.Signal)
	log  *slog.Logger
	now  time.Time

	files   files
	vmstat  *host.VMStat // nil: the kernel does not count, or it cannot be read
	inotify *inotify     // nil: the kernel gives none
	waker   *waker       // v1 only
	park    *park        // nil: it cannot be had
	cancel  int          // eventfd that ctx writes to

	tree   tree
	limbo  map[uint64]missing // by id
	seeks  map[*node]attempt
	levels map[*node]signal.Level

	starting   bool
	up         bool
	reasons    map[string]string // why it is lesser, by kind
	troubles   map[string]bool   // what was logged
	unwatched  bool
	localKnown bool // whether memory.events.local is there was looked at
	overflow   bool
	scanSoon   bool
	rootGone   bool

	woke      bool // something may have been killed
	treeMoved bool // cgroups came or went
	sched     schedule
	total     uint64 // the machine's count
	emitting  time.Duration
}

func (l *loop) close() {
	if l.tree.root != nil {
		l.tree.root.each(func(n *node) { l.files.release(n.file) })
	}
	for _, m := range l.limbo {
		m.node.each(func(n *node) { l.files.release(n.file) })
	}
	if l.inotify != nil {
		l.inotify.close()
	}
	if l.waker != nil {
		l.waker.close()
	}
	if l.park != nil {
		l.park.close()
	}
	if l.vmstat != nil {
		_ = l.vmstat.Close()
	}
}

// rest has long waits cost little, where that can be.
func (l *loop) rest() {
	fds := []int{l.cancel}
	if l.inotify != nil {
		fds = append(fds, l.inotify.fd)
	}
	if l.waker != nil {
		fds = append(fds, l.waker.epfd)
	}
	var err error
	if l.park, err = newPark(fds...); err != nil {
		l.log.Debug("waits cost more than they need to", "err", err)
	}
}

func (l *loop) run() error {
	if err := l.open(); err != nil {
		return err
	}
	cancel, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	l.cancel = cancel
	written := make(chan struct{})
	stop := context.AfterFunc(l.ctx, func() {
		defer close(written)
		_, _ = unix.Write(cancel, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() {
			<-written
		}
		_ = unix.Close(cancel)
	}()
	if err := l.start(); err != nil {
		return err
	}
	l.rest()
	for l.ctx.Err() == nil {
		if err := l.wait(); err != nil {
			return err
		}
		if l.rootGone {
			return ErrGone
		}
		l.work()
	}
	return nil
}

// open takes what the machine offers; only the hierarchy is needed.
func (l *loop) open() error {
	hier, err := l.opt.Roots.MemoryHierarchy()
	if err != nil {
		return err
	}
	l.files.hier = hier
	if hier.Part() {
		l.lesser("part", "only a part of the cgroups is seen at "+hier.Mount+": in a container, pass the host's in: "+
			"--cgroupns host --volume /sys/fs/cgroup:/sys/fs/cgroup:ro")
	}
	var open unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &open); err != nil {
		l.log.Debug("limit of open files is not known", "err", err)
	}
	l.files.most = keepable(open.Cur)
	if l.vmstat, err = l.opt.Roots.OpenVMStat(); err == nil {
		if _, err = l.vmstat.OOMKills(); err != nil {
			_ = l.vmstat.Close()
			l.vmstat = nil
		}
	}
	if err != nil {
		l.lesser("vmstat", err.Error())
	}
	if l.opt.noInotify {
		err = unix.EMFILE
	} else {
		l.inotify, err = newInotify()
	}
	if l.inotify != nil {
		l.inotify.most = l.opt.maxWatches
	}
	if err != nil {
		l.unwatched = true
		l.lesser("inotify", fmt.Sprintf("inotify: %v: the tree is read again and again", err))
	}
	if hier.Version == 1 {
		if l.waker, err = newWaker(); err != nil {
			l.waker = nil
			l.log.Debug("no wake-ups by eventfd", "err", err)
		}
	}
	return nil
}

// start reads the tree and tells it. If kills happen meanwhile, it cannot be
// known which counters have them, so the counts are taken again.
func (l *loop) start() error {
	dir := l.files.hier.Mount
	wd := l.watch(dir)
	id, _, err := stat(dir)
	if err != nil {
		return fmt.Errorf("stat %s: %w", dir, err)
	}
	stood := time.Now()
	before, _ := l.readTotal()
	l.starting = true
	root := newNode(nil, "/", id)
	l.tree.link(root)
	l.setWatch(root, wd)
	l.enter(root)
	l.descend(root)
	for range 3 {
		now, ok := l.readTotal()
		if !ok || now == before || l.ctx.Err() != nil {
			break
		}
		before = now
		root.each(l.baseline)
	}
	l.starting = false
	clear(l.levels)
	root.each(l.stand)
	if err := l.ctx.Err(); err != nil {
		return err // what was told is not all that is there
	}
	l.total = before
	if l.vmstat != nil {
		l.say(signal.NodeCounters{Total: before, Counted: stood.UTC()})
	}
	l.sched.begin(stood, l.files.hier.Version, l.opt.PollInterval, l.scanInterval())
	l.up = true
	l.state()
	return nil
}

func (l *loop) readTotal() (uint64, bool) {
	if l.vmstat == nil {
		return 0, false
	}
	n, err := l.vmstat.OOMKills()
	if err != nil {
		l.trouble("vmstat", err)
		return l.total, false
	}
	return n, true
}

func (l *loop) say(b signal.Body) {
	start := time.Now()
	now := start.UTC()
	l.emit(signal.Signal{Time: now, Observed: now, Source: death.SourceCgroup, Body: b})
	l.emitting += time.Since(start)
}

// lesser notes, once for each kind, why the source does less than it could.
func (l *loop) lesser(kind, reason string) {
	if l.reasons[kind] != "" {
		return
	}
	l.reasons[kind] = reason
	l.log.Warn("cgroup source does less", "reason", reason)
	if l.up {
		l.state()
	}
}

// trouble logs the first trouble of each kind; the source goes on without.
func (l *loop) trouble(path string, err error) {
	if errors.Is(err, unix.EACCES) {
		l.lesser("rights", fmt.Sprintf("cgroups that this user cannot read are not seen, such as %.200q: needs user 0 or CAP_DAC_READ_SEARCH", path))
		return
	}
	kind := "unreadable"
	var errno unix.Errno
	if errors.As(err, &errno) {
		kind = errno.Error()
	}
	if !l.troubles[kind] {
		l.troubles[kind] = true
		l.log.Warn("cgroup cannot be read", "path", path, "err", err)
	}
}

func (l *loop) state() {
	reason := ""
	for _, kind := range []string{"part", "vmstat", "inotify", "watches", "full", "rights"} {
		if r := l.reasons[kind]; r != "" {
			if reason != "" {
				reason += "; "
			}
			reason += r
		}
	}
	l.say(signal.SourceState{Up: true, Mode: fmt.Sprintf("v%d", l.files.hier.Version), Reason: reason})
}
