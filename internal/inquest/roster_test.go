// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

func seen(id uint64, path string, limit int64, initPID int) signal.CgroupSeen {
	l := level(path, limit, -1)
	l.ID = id
	return signal.CgroupSeen{Level: l, InitPID: initPID}
}

// TestRoster_TheDeadStayResolvable: a signal that names a cgroup by its number
// alone finds its path, also after the cgroup has gone, for a while.
func TestRoster_TheDeadStayResolvable(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	v := task(100, "leak", "", false)
	v.Cgroup = signal.Cgroup{ID: 7}
	sigs := append(sources(sc, "tracepoint", "cgroup"),
		sc.sig("cgroup", seen(7, leftPath, 40*mib, 0)),
		sc.sig("cgroup", signal.CgroupGone{Cgroup: signal.Cgroup{ID: 7, Path: leftPath}}))
	for _, b := range oomKill(v, v) {
		sigs = append(sigs, sc.sig("tracepoint", b))
	}
	d := only(t, play(t, q, sigs...))
	if d.Container == nil || d.Container.ID != leftID || d.Memory == nil || *d.Memory.LimitBytes != 40*mib {
		t.Errorf("got:\n%s", sketch([]death.Death{d}))
	}
	q.Tick(q.now.Add(time.Hour))
	if p := q.roster.path(signal.Cgroup{ID: 7}); p != "" {
		t.Errorf("after an hour the number still means %s", p)
	}
}

// TestRoster_NameComesLate: the death is placed as soon as the cgroup is known.
func TestRoster_NameComesLate(t *testing.T) {
	sc := &scene{}
	v := task(100, "leak", "", false)
	v.Cgroup = signal.Cgroup{ID: 7}
	sigs := sources(sc, "tracepoint", "cgroup")
	for _, b := range oomKill(v, v) {
		sigs = append(sigs, sc.sig("tracepoint", b))
	}
	sigs = append(sigs, sc.sig("cgroup", seen(7, leftPath, 0, 0)))
	if d := only(t, play(t, New(Options{}), sigs...)); d.Container == nil || d.Container.ID != leftID {
		t.Errorf("got:\n%s", sketch([]death.Death{d}))
	}
}

// TestRoster_ReusedName: another cgroup under an old name is another one.
func TestRoster_ReusedName(t *testing.T) {
	r := newRoster(time.Minute)
	r.seen(seen(7, "/a", 10, 0))
	r.gone(signal.Cgroup{ID: 7}, epoch)
	r.seen(seen(8, "/a", 20, 0))
	r.expire(epoch.Add(time.Hour))
	if e := r.find(signal.Cgroup{Path: "/a"}); e == nil || e.ID != 8 || *e.LimitBytes != 20 {
		t.Errorf("found %+v, want the new one", e)
	}
	if e := r.find(signal.Cgroup{ID: 7}); e != nil {
		t.Errorf("the old one is still known: %+v", e)
	}
}

func TestRoster_TombstonesAreBounded(t *testing.T) {
	r := newRoster(time.Hour)
	for i := range uint64(maxTombstones + 500) {
		c := seen(i+1, fmt.Sprintf("/c%d", i), 0, 0)
		r.seen(c)
		r.gone(c.Cgroup, epoch)
	}
	r.expire(epoch)
	if n := len(r.byPath); n != maxTombstones || len(r.graves) != n || len(r.byID) != n {
		t.Errorf("kept %d paths, %d numbers, %d graves; want %d", n, len(r.byID), len(r.graves), maxTombstones)
	}
}

// TestRoster_FirstProcess: without tracepoints the roster tells whether the
// victim was its container's first process.
func TestRoster_FirstProcess(t *testing.T) {
	for _, tc := range []struct {
		name    string
		first   int
		subject death.Subject
	}{
		{"it was", 100, death.SubjectContainer},
		{"it was not", 99, death.SubjectProcess},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := append(sources(sc, "kmsg", "cgroup"), sc.sig("cgroup", seen(7, leftPath, 40*mib, tc.first)),
				sc.sig("kmsg", reported(100, "leak", leftPath, leftPath, 40*mib, 40*mib)))
			d := only(t, play(t, New(Options{}), sigs...))
			if d.Subject != tc.subject || d.Processes[0].Init == nil || *d.Processes[0].Init != (tc.first == 100) {
				t.Errorf("got:\n%s", sketch([]death.Death{d}))
			}
		})
	}
}

// TestRoster_GoneRightAfter: where nobody knows the first process, a cgroup
// that goes within a second of the kill went because of it; later, not.
func TestRoster_GoneRightAfter(t *testing.T) {
	for _, tc := range []struct {
		name    string
		after   int // milliseconds
		subject death.Subject
	}{
		{"at once", 20, death.SubjectContainer},
		{"three seconds later", 3000, death.SubjectProcess},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := append(sources(sc, "kmsg", "cgroup"), sc.sig("cgroup", seen(7, leftPath, 40*mib, 0)),
				sc.sig("kmsg", reported(100, "leak", leftPath, leftPath, 40*mib, 40*mib)))
			sc.n += tc.after
			sigs = append(sigs, sc.sig("cgroup", signal.CgroupGone{Cgroup: signal.Cgroup{Path: leftPath}}))
			if d := only(t, play(t, New(Options{}), sigs...)); d.Subject != tc.subject {
				t.Errorf("got:\n%s", sketch([]death.Death{d}))
			}
		})
	}
}

// TestInquest_GroupOverTwoContainers: memory.oom.group on the pod takes both
// containers: one death each, which know of one another.
func TestInquest_GroupOverTwoContainers(t *testing.T) {
	pod := level(podPath, 40*mib, 40*mib)
	pod.OOMGroup = true
	trigger := task(100, "fat", leftPath, true)
	sc := &scene{}
	sigs := sources(sc, "tracepoint")
	for _, v := range []signal.Task{trigger, task(101, "kid", leftPath, false), task(200, "other", rightPth, true)} {
		for _, b := range oomKill(v, trigger, level(v.Cgroup.Path, 0, 20*mib), pod) {
			sigs = append(sigs, sc.sig("tracepoint", b))
		}
	}
	ds := play(t, New(Options{}), sigs...)
	if len(ds) != 2 {
		t.Fatalf("deaths = %d, want 2\n%s", len(ds), sketch(ds))
	}
	var got []any
	for _, d := range ds {
		got = append(got, d.Container.ID, len(d.Processes), d.OOM.GroupKill, d.OOM.Containers, d.Subject, d.Cause)
	}
	want := []any{leftID, 2, true, 2, death.SubjectContainer, death.OOMPodLimit, rightID, 1, true, 2, death.SubjectContainer, death.OOMPodLimit}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s%s", diff, sketch(ds))
	}
}

// TestInquest_GroupTakesLong: on a machine without memory the agent may hear of
// the others of a group seconds after the first victim, and the kernel, which
// writes of each to a slow console, may take as long. Who is dying begins no
// other run of the OOM killer, others may.
func TestInquest_GroupTakesLong(t *testing.T) {
	box := level(leftPath, 0, 40*mib)
	box.OOMGroup = true
	greedy := task(103, "greedy", leftPath, false)
	for name, tc := range map[string]struct {
		trigger    signal.Task
		took, late time.Duration
		want       int
	}{
		"at once":                     {greedy, 0, 0, 1},
		"heard late":                  {greedy, 0, 3 * time.Second, 1},
		"another's, heard late":       {task(900, "other", "/batch", false), 0, 3 * time.Second, 1},
		"written to a console":        {greedy, 3 * time.Second, 0, 1},
		"another's, again in a while": {task(900, "other", "/batch", false), 3 * time.Second, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			for _, s := range sources(sc, "tracepoint") {
				q.Feed(s)
			}
			kill := func(v signal.Task, took, late time.Duration) {
				for _, b := range oomKill(v, tc.trigger, box) {
					s := sc.sig("tracepoint", b)
					s.Time = s.Time.Add(took)
					s.Observed = s.Time.Add(late)
					q.Tick(s.Observed)
					q.Feed(s)
				}
			}
			kill(greedy, 0, 0)
			ds := map[string]death.Death{}
			take := func(all []death.Death) {
				for _, d := range all {
					ds[d.ID] = d
				}
			}
			take(q.Take())
			kill(task(101, "first", leftPath, false), tc.took, tc.late)
			kill(task(102, "member", leftPath, false), tc.took, tc.late)
			take(q.Close())
			if len(ds) != tc.want {
				t.Errorf("deaths = %d, want %d\n%s", len(ds), tc.want, sketch(slices.Collect(maps.Values(ds))))
			}
		})
	}
}

// TestInquest_GroupWithoutAWord: tracefs alone on v2 cannot see
// memory.oom.group; the kills of one trigger at one moment are one death.
func TestInquest_GroupWithoutAWord(t *testing.T) {
	trigger := task(105, "trigger", leftPath, false)
	for _, tc := range []struct {
		mode string
		want int
	}{{"v2", 1}, {"v1", 2}} {
		sc := &scene{}
		sigs := []signal.Signal{sc.sig("cgroup", signal.SourceState{Up: true, Mode: tc.mode})}
		for _, v := range []signal.Task{task(101, "a", leftPath, false), task(102, "b", leftPath, false)} {
			for _, b := range oomKill(v, trigger) {
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
		}
		if ds := play(t, New(Options{}), sigs...); len(ds) != tc.want {
			t.Errorf("on %s: deaths = %d, want %d\n%s", tc.mode, len(ds), tc.want, sketch(ds))
		}
	}
}

// TestInquest_Notes: lines of the log that are no kills of their own.
func TestInquest_Notes(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	kill := reported(100, "leak", leftPath, leftPath, 40*mib, 40*mib)
	d := only(t, play(t, q, append(sources(sc, "kmsg"),
		sc.sig("kmsg", kill),
		sc.sig("kmsg", signal.ReportedNote{Report: kill.Report, Kind: signal.NoteSharer, PID: 101, Text: "Kill process 101 (b) sharing same memory"}),
		sc.sig("kmsg", signal.ReportedNote{Kind: signal.NoteAlreadyExiting, PID: 100}),
		sc.sig("kmsg", signal.ReportedNote{Kind: signal.NoteAlreadyExiting, PID: 555}),
		sc.sig("kmsg", signal.ReportedNote{Kind: signal.NoteReaped, PID: 100}))...))
	if len(d.Processes) != 2 || d.Processes[1].Fate != death.FateSharer || d.OOMKills() != 1 {
		t.Errorf("got:\n%s", sketch([]death.Death{d}))
	}
	if n := q.Stats().AlreadyDying; n != 1 {
		t.Errorf("already dying = %d, want 1: pid 100 is a group's first victim looked at again", n)
	}
}

// TestInquest_EvidenceIsBounded: what is not shown is counted.
func TestInquest_EvidenceIsBounded(t *testing.T) {
	sc := &scene{}
	v := task(100, "leak", leftPath, true)
	sigs := sources(sc, "tracepoint")
	for _, b := range oomKill(v, v) {
		sigs = append(sigs, sc.sig("tracepoint", b))
	}
	for i := range 200 {
		sigs = append(sigs, sc.sig("tracepoint", signal.Kill{Target: v, Sender: task(900+i, "angry", "/x", false), Signal: 9}))
	}
	d := only(t, play(t, New(Options{}), sigs...))
	last := d.Evidence[len(d.Evidence)-1].Text
	if len(d.Evidence) != maxEvidence+1 || last != "137 more lines of evidence or processes are not shown" {
		t.Errorf("%d lines, the last %q", len(d.Evidence), last)
	}
}

// TestInquest_LateIsCounted: evidence for a death that was let go doubles
// nothing.
func TestInquest_LateIsCounted(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	v := task(100, "leak", leftPath, false)
	for _, b := range oomKill(v, v) {
		q.Feed(sc.sig("tracepoint", b))
	}
	only(t, q.Take())
	q.Tick(epoch.Add(20 * time.Second))
	s := sc.sig("kmsg", reported(100, "leak", leftPath, leftPath, 40*mib, 40*mib))
	s.Observed = epoch.Add(21 * time.Second)
	q.Feed(s)
	if ds := q.Take(); len(ds) != 0 || q.Stats().Late != 1 {
		t.Errorf("late %d, deaths:\n%s", q.Stats().Late, sketch(ds))
	}
}

// TestLedger_AccountsAreBounded: balanced accounts go first.
func TestLedger_AccountsAreBounded(t *testing.T) {
	l := newLedger()
	for i := range maxAccounts + 10 {
		a := l.account(signal.Cgroup{Path: fmt.Sprintf("/c%d", i)})
		a.own.counted = 1
		if i%2 == 0 {
			a.own.explained = 1
		}
	}
	if len(l.all) > maxAccounts || l.byPath["/c1"] == nil || l.byPath["/c0"] != nil {
		t.Errorf("%d accounts; the unbalanced one kept: %v, the balanced one gone: %v", len(l.all), l.byPath["/c1"] != nil, l.byPath["/c0"] == nil)
	}
}

// TestRoster_FirstProcessOfThen: who is the first process now says nothing of a
// kill in a container that was started again since.
func TestRoster_FirstProcessOfThen(t *testing.T) {
	killed := epoch.Add(-time.Hour)
	runs := func(since time.Time) saying {
		b := webSeen
		b.PID, b.Started = 200, since
		return saying{"docker", b}
	}
	for _, tc := range []struct {
		name, path, livesOn string
		engine              saying
	}{
		{"nobody tells since when it runs", webPath, "not known", runs(time.Time{})},
		{"it was started again", webPath, "not known", runs(killed.Add(time.Minute))},
		{"started again at once", webPath, "not known", runs(killed.Add(100 * time.Millisecond))},
		{"it ran then", webPath, "known", runs(killed.Add(-time.Minute))},
		{"Kubernetes starts none again", leftPath, "known", saying{"docker", webSeen}},
	} {
		for _, order := range []string{"engine first", "engine last"} {
			t.Run(tc.name+", "+order, func(t *testing.T) {
				sc := &scene{}
				line := sc.sig("kmsg", reported(100, "app", tc.path, tc.path, 40*mib, 40*mib))
				line.Recovered, line.Time = true, killed
				sigs := append(sources(sc, "docker", "kmsg", "cgroup"), sc.sig("cgroup", seen(7, tc.path, 40*mib, 200)))
				if order == "engine first" {
					sigs = append(sigs, sc.sig(tc.engine.src, tc.engine.body), line)
				} else {
					sigs = append(sigs, line, sc.sig(tc.engine.src, tc.engine.body))
				}
				d := only(t, ticking(New(Options{}), sigs...))
				known := d.Processes[0].Init != nil
				if known != (tc.livesOn == "known") || strings.Contains(d.Summary, "lives on") != known {
					t.Errorf("first process known: %v\n%s", known, sketch([]death.Death{d}))
				}
			})
		}
	}
}

// TestRoster_FirstProcessFoundLater: where the log alone tells of a kill, it is
// known that the container lives on once its first process is found, but not
// by that of its next life.
func TestRoster_FirstProcessFoundLater(t *testing.T) {
	for name, tc := range map[string]struct {
		after []signal.Body
		known bool
	}{
		"found":           {[]signal.Body{seen(7, webPath, 40*mib, 102)}, true},
		"not found":       {nil, false},
		"a counter told":  {[]signal.Body{seen(7, webPath, 40*mib, 102)}, false},
		"of its next run": {[]signal.Body{signal.CgroupGone{Cgroup: signal.Cgroup{ID: 7, Path: webPath}}, seen(8, webPath, 40*mib, 102)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &scene{}
			sigs := append(sources(sc, "docker", "cgroup"), sc.sig("cgroup", seen(7, webPath, 40*mib, 0)))
			sc.n += 2000
			kill := sc.sig("kmsg", reported(101, "app", webPath, webPath, 40*mib, 40*mib))
			if name == "a counter told" { // of whom nobody knows who it was
				kill = sc.sig("cgroup", signal.CgroupCounters{Cgroup: signal.Cgroup{Path: webPath}, OOMKill: 1, Chain: []signal.Level{level(webPath, 40*mib, -1)}})
			}
			sigs = append(sigs, kill)
			for _, b := range tc.after {
				sigs = append(sigs, sc.sig("cgroup", b))
			}
			d := only(t, ticking(New(Options{}), sigs...))
			if known := d.Processes[0].Init != nil; known != tc.known || strings.Contains(d.Summary, "lives on") != tc.known {
				t.Errorf("first process known: %v\n%s", known, sketch([]death.Death{d}))
			}
		})
	}
}
