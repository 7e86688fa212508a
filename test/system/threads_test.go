// SPDX-License-Identifier: Apache-2.0

//go:build linux

package system

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/internal/source/tracepoint"
)

// TestAgent_KillsOfManyThreads: threads of a victim that ask for memory before
// they are gone are marked as victims, too, since 6.15. One process is one kill.
func TestAgent_KillsOfManyThreads(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*agent.Options)
	}{
		{"everything", everything},
		{"tracefs", func(o *agent.Options) { o.Source.TracepointMode = tracepoint.ModeTracefs }},
		{"bpf alone", alone(death.SourceTracepoint, tracepoint.ModeBPF)},
		{"tracefs alone", alone(death.SourceTracepoint, tracepoint.ModeTracefs)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := start(t, tc.change)
			tree := oomtest.New(t)
			box := tree.Cgroup("docker/"+oomtest.ContainerID(tc.name), oomtest.Limit(48*mib))
			first := box.Start(oomtest.Load{Comm: []byte("first"), Bytes: oomtest.Idle})
			first.Go()
			const kills = 20
			began := time.Now()
			pids := map[int]bool{}
			for range kills {
				w, _ := box.Run(oomtest.Load{Comm: []byte("worker"), Takers: 7})
				pids[w.PID] = true
			}
			want := kills
			// The kernel may take one more where the memory of a worker that is gone is
			// not yet free (mm/mmap.c, exit_mmap sets MMF_OOM_SKIP before it is).
			if n := int(box.OOMKills()); n > kills && first.All[0].Ended(time.Second) {
				want++
				pids[first.PID] = true
			}
			if n := int(box.OOMKills()); n != want {
				t.Fatalf("the kernel counted %d kills, want %d", n, want)
			}
			r.poll(func() error {
				// In mode tracefs a victim that was gone at once has no cgroup. The log
				// has those of the test before, too.
				nameless := slices.DeleteFunc(r.below(""), func(d death.Death) bool { return d.Time.Before(began) })
				ds := append(r.below(box.Path), nameless...)
				told := map[int]bool{}
				for i := range ds {
					p := ds[i].Processes
					if len(p) != 1 || !pids[p[0].PID] {
						return fmt.Errorf("death %d: %+v, want one worker", i, p)
					}
					told[p[0].PID] = true
				}
				return all(is("deaths", len(ds), want), is("workers", len(told), want))
			})
		})
	}
}
