// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

func earlyoom() signal.Task {
	return onHost(task(700, "earlyoom", "/system.slice/earlyoom.service", false))
}

// TestOOMDaemon_Term: earlyoom asks first. What ends for it is its doing, also a
// worker; what does not end, or much later, is not, and SIGKILL after it is told
// in the same death.
func TestOOMDaemon_Term(t *testing.T) {
	early := earlyoom()
	first, worker := task(100, "app", leftPath, true), task(101, "worker", leftPath, false)
	host := task(102, "browser", "/user.slice/user-1000.slice/session-2.scope", false)
	other := worker
	other.Comm = "another"
	fake := task(701, "earlyoom", rightPth+"/system.slice/earlyoom.service", false)
	send := func(sig int, by, of signal.Task) signal.Kill { return signal.Kill{Target: of, Sender: by, Signal: sig} }
	for _, tc := range []struct {
		name       string
		after      time.Duration // until the end
		bodies     []signal.Body
		cause      death.Cause
		confidence death.Confidence
		subject    death.Subject
		says       string
	}{
		{"a worker that dies of it", 0, []signal.Body{send(15, early, worker), signal.Exit{Task: worker, Signal: ptr(15)}}, death.OOMUserspace, death.Certain, death.SubjectProcess, "killed worker (pid 101)"},
		{"a worker that leaves well", 0, []signal.Body{send(15, early, worker), signal.Exit{Task: worker, Code: ptr(0)}}, death.OOMUserspace, death.Probable, death.SubjectProcess, "sent SIGTERM to worker (pid 101)"},
		{"a host process", 0, []signal.Body{send(15, early, host), signal.Exit{Task: host, Signal: ptr(15)}}, death.OOMUserspace, death.Certain, death.SubjectProcess, "killed browser (pid 102)"},
		{"a first process", 0, []signal.Body{send(15, early, first), signal.Exit{Task: first, Code: ptr(0)}}, death.OOMUserspace, death.Probable, death.SubjectContainer, "the container ended"},
		{"killed later", 0, []signal.Body{send(15, early, worker), send(9, early, worker), signal.Exit{Task: worker, Signal: ptr(9)}}, death.OOMUserspace, death.Certain, death.SubjectProcess, "killed worker (pid 101)"},
		{"a worker that lives on", 0, []signal.Body{send(15, early, worker)}, "", "", "", ""},
		{"a worker that ends much later", time.Minute, []signal.Body{send(15, early, worker), signal.Exit{Task: worker, Code: ptr(0)}}, "", "", "", ""},
		{"another with its pid", 0, []signal.Body{send(15, early, worker), signal.Exit{Task: other, Code: ptr(0)}}, "", "", "", ""},
		{"a worker, by a container that calls itself so", 0, []signal.Body{send(15, fake, worker), signal.Exit{Task: worker, Signal: ptr(15)}}, "", "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			sigs := sources(sc, "tracepoint")
			for _, b := range tc.bodies {
				if _, end := b.(signal.Exit); end {
					sc.n += int(tc.after / time.Millisecond)
				}
				sigs = append(sigs, sc.sig("tracepoint", b))
			}
			ds := ticking(New(Options{}), sigs...)
			if tc.cause == "" {
				if len(ds) != 0 {
					t.Errorf("got:\n%s", sketch(ds))
				}
				return
			}
			d := only(t, ds)
			if d.Cause != tc.cause || d.Confidence != tc.confidence || d.Subject != tc.subject || d.Killer == nil || d.Killer.PID != 700 ||
				!strings.Contains(d.Summary, tc.says) || len(d.Processes) != 1 {
				t.Errorf("got:\n%s", sketch(ds))
			}
		})
	}
}

// lines are what earlyoom 1.7 and systemd-oomd 252 wrote, of another pid and path.
func lines(at time.Time) []signal.JournalLine {
	early := func(ms int, text string) signal.JournalLine {
		return signal.JournalLine{Time: at.Add(time.Duration(ms) * time.Millisecond), Unit: "earlyoom.service", PID: 700, Text: text}
	}
	return []signal.JournalLine{
		early(-1500, "mem avail:   428 of   468 MiB (90.83%), swap free:    0 of    0 MiB ( 0.00%)"),
		early(-50, "low memory! at or below SIGTERM limits: mem 10.00%, swap 10.00%"),
		early(-40, "mem avail:    28 of   468 MiB ( 8.83%), swap free:    0 of    0 MiB ( 0.00%)"),
		early(1, `sending SIGTERM to process 101 uid 0 "worker": badness 1124, VmRSS 181 MiB`),
		early(90, "process exited after 0.1 seconds"),
		{Time: at.Add(100 * time.Millisecond), Unit: "systemd-oomd.service", PID: 800, Text: "Killed " + webPath + " due to memory pressure for /kubepods.slice being 62.36% > 50.00% for > 20s with reclaim activity"},
	}
}

// TestOOMDaemon_Words: what such a program left behind says why, and names it
// where nobody was seen; what is of others says nothing.
func TestOOMDaemon_Words(t *testing.T) {
	first, worker := task(100, "app", webPath, true), task(101, "worker", webPath, false)
	byEarly := []signal.Body{signal.Kill{Target: worker, Sender: earlyoom(), Signal: 9}}
	oomd := onHost(task(800, "systemd-oomd", "/system.slice/systemd-oomd.service", false))
	byOomd := []signal.Body{signal.Kill{Target: first, Sender: oomd, Signal: 9}, signal.Exit{Task: first, Signal: ptr(9)}}
	unseen := []signal.Body{signal.CgroupSeen{Level: level(webPath, 0, -1)}, webExit(137, false)}
	for _, tc := range []struct {
		name   string
		bodies []signal.Body
		word   func(at time.Time) signal.OOMDaemonWord
		asked  []string
		cause  death.Cause
		rule   string
		says   string
		path   string
		notes  int // lines of the journal among the evidence
	}{
		{"earlyoom", byEarly, func(at time.Time) signal.OOMDaemonWord { return signal.OOMDaemonWord{Lines: lines(at)} },
			[]string{"earlyoom.service"}, death.OOMUserspace, "oom-daemon", "must (mem avail: 28 of 468 MiB ( 8.83%), swap free: 0 of 0 MiB ( 0.00%))", webPath, 3},
		{"systemd-oomd", byOomd, func(at time.Time) signal.OOMDaemonWord {
			return signal.OOMDaemonWord{Lines: lines(at), OOMs: ptr(int64(1))}
		},
			[]string{"systemd-oomd.service"}, death.OOMUserspace, "oom-daemon", "must (memory pressure for /kubepods.slice being 62.36% > 50.00% for > 20s with reclaim activity)", webPath, 1},
		{"no journal", byOomd, func(time.Time) signal.OOMDaemonWord { return signal.OOMDaemonWord{Error: "no journal"} },
			[]string{"systemd-oomd.service"}, death.OOMUserspace, "oom-daemon", "before the kernel must; the", webPath, 1},
		{"nobody seen, its line", unseen, func(at time.Time) signal.OOMDaemonWord { return signal.OOMDaemonWord{Lines: lines(at)} },
			spokenUnits, death.OOMUserspace, "oom-daemon-told", "systemd-oomd killed its first process", webPath, 1},
		{"nobody seen, its line, no cgroup known", unseen[1:], func(at time.Time) signal.OOMDaemonWord { return signal.OOMDaemonWord{Lines: lines(at)} },
			spokenUnits, death.OOMUserspace, "oom-daemon-told", "systemd-oomd killed its first process", "", 1},
		{"nobody seen, the attribute", unseen, func(time.Time) signal.OOMDaemonWord {
			return signal.OOMDaemonWord{OOMs: ptr(int64(1)), Killed: ptr(int64(3))}
		},
			spokenUnits, death.OOMUserspace, "oom-daemon-told", "systemd-oomd killed its first process", webPath, 0},
		{"nobody seen, lines of others", unseen, func(at time.Time) signal.OOMDaemonWord {
			ls := lines(at)
			ls[len(ls)-1].Text = strings.Replace(ls[len(ls)-1].Text, webPath, rightPth, 1)
			return signal.OOMDaemonWord{Lines: ls, Error: "no journal"}
		}, spokenUnits, death.Unknown, "sigkill", "", webPath, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := &scene{}
			q := New(Options{})
			var ds []death.Death
			for _, s := range dockers(sc) {
				q.Feed(s)
			}
			for _, b := range tc.bodies {
				src := death.SourceTracepoint
				switch b.(type) {
				case signal.ContainerExit:
					src = death.SourceDocker
				case signal.CgroupSeen:
					src = death.SourceCgroup
				}
				q.Feed(sc.sig(src, b))
				ds = append(ds, q.Take()...)
			}
			for range 20 {
				sc.n += 250
				q.Tick(sc.sig("tracepoint", nil).Observed)
				ds = append(ds, q.Take()...)
			}
			var wants []Want
			for _, w := range q.TakeWants() {
				if w.Kind == WantDaemon {
					wants = append(wants, w)
				}
			}
			if len(wants) != 1 || wants[0].Cgroup != tc.path || !slices.Equal(wants[0].Units, tc.asked) {
				t.Fatalf("wants %+v after\n%s", wants, sketch(ds))
			}
			word := tc.word(wants[0].At)
			word.ID, word.Path, word.At = wants[0].ContainerID, wants[0].Cgroup, wants[0].At
			q.Feed(sc.sig("journal", word))
			ds = append(ds, q.Take()...)
			d := ds[len(ds)-1]
			notes := 0
			for _, e := range d.Evidence {
				if e.Source == death.SourceJournal {
					notes++
				}
			}
			if d.Cause != tc.cause || d.Rule != tc.rule || !strings.Contains(d.Summary, tc.says) || notes != tc.notes {
				t.Errorf("got:\n%s", sketch([]death.Death{d}))
			}
			if tc.name == "nobody seen, its line" && (d.Killer == nil || d.Killer.Unit != "systemd-oomd.service" || d.Killer.PID != 800 || d.Confidence != death.Probable) {
				t.Errorf("killer %+v, %s", d.Killer, d.Confidence)
			}
		})
	}
}

func TestDaemonLines(t *testing.T) {
	for text, want := range map[string]int{
		`sending SIGTERM to process 172 uid 0 "coroner": badness 1124, VmRSS 181 MiB`:     172,
		`sending SIGKILL to process 9 uid 0 "x": oom_score 800, VmRSS 1 MiB, cmdline "y"`: 9,
		`sending SIGTERM when mem <= 50.00% and swap <= 10.00%,`:                          0,
		`sending SIGTERM to process 99999999999999999999 uid`:                             0,
		`sending SIGTERM to process 12`:                                                   0,
		`x: sending SIGTERM to process 12 uid 0`:                                          0,
	} {
		if got := earlyoomKills(text); got != want {
			t.Errorf("earlyoomKills(%q) = %d, want %d", text, got, want)
		}
	}
	for _, tc := range []struct {
		text, path, why string
		about           bool
	}{
		{"Killed /a.slice/b.scope due to memory pressure", "/a.slice/b.scope", "memory pressure", true},
		{"Killed /a.slice due to memory used (1) / total (2) and swap used (3)", "/a.slice/b.scope", "memory used (1) / total (2) and swap used (3)", true},
		{"Killed /a.slice/b.scope2 due to memory pressure", "/a.slice/b.scope", "memory pressure", false},
		{"Killed /a.slice/b.scope", "/a.slice/b.scope", "", false},
		{"Considered 1 cgroups for killing, top candidates were:", "/a.slice/b.scope", "", false},
		{"Killed / due to x", "", "", false},
	} {
		if why, about := oomdKilled(tc.text, "", tc.path); about != tc.about || about && why != tc.why {
			t.Errorf("oomdKilled(%q, %q) = %q, %v", tc.text, tc.path, why, about)
		}
	}
}

// TestOOMDaemon_SeenLate: the tracepoint tells who sent the SIGKILL after the
// program's own words were read, or of another that it sent.
func TestOOMDaemon_SeenLate(t *testing.T) {
	oomd := onHost(task(700, "systemd-oomd", "/system.slice/systemd-oomd.service", false))
	for name, tc := range map[string]struct {
		target signal.Task
		deaths int
	}{
		"the first process": {task(100, "app", webPath, true), 1},
		"a worker":          {task(101, "worker", webPath, false), 1},
		"one elsewhere":     {task(102, "browser", "/user.slice/user-1000.slice/session-2.scope", false), 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := begun(t, "docker", "tracepoint", "cgroup")
			l.say("cgroup", l.now, seen(7, webPath, 40*mib, 100))
			l.say("cgroup", l.now, signal.NodeCounters{})
			at, b := webRun{pid: 100, code: 137, ended: epoch.Add(time.Second)}.says("docker")
			l.say("docker", at, b)
			asked := 0
			for range 4 {
				l.pass(time.Second)
				for _, w := range l.q.TakeWants() {
					if w.Kind == WantDaemon {
						asked++
						l.say("journal", l.now, signal.OOMDaemonWord{ID: w.ContainerID, Path: w.Cgroup, At: w.At, OOMs: ptr(int64(1))})
					}
				}
			}
			l.say("tracepoint", at, signal.Kill{Target: tc.target, Sender: oomd, Signal: 9})
			l.pass(20 * time.Second)
			if len(l.deaths) != tc.deaths || asked != 1 {
				t.Fatalf("asked %d times, deaths:\n%s", asked, sketch(l.deaths))
			}
			for _, d := range l.deaths {
				if d.Cause != death.OOMUserspace || tc.deaths == 1 && (d.Killer == nil || d.Killer.PID != 700) {
					t.Errorf("got:\n%s", sketch(l.deaths))
				}
			}
		})
	}
}
