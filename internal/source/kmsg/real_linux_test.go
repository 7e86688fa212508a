// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/internal/signal"
)

func TestMain(m *testing.M) { oomtest.Main(m) }

// forge writes lines of a kill that never was, as user space can.
func forge(t *testing.T, pid int) {
	t.Helper()
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	kill := fmt.Sprintf("Memory cgroup out of memory: Killed process %d (coroner-forged) total-vm:4kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:4kB oom_score_adj:0\n", pid)
	summary := fmt.Sprintf("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/forged,task_memcg=/forged,task=coroner-forged,pid=%d,uid=0\n", pid)
	for _, s := range []string{summary, kill, "<3>" + kill, "<0>" + kill} {
		if _, err := f.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRun_RealDevice(t *testing.T) {
	oomtest.Require(t, oomtest.RealKills)
	const forged = 4194303
	s := New(Options{Path: host.Roots{}.Devkmsg()})
	up := make(chan struct{})
	kills := make(chan signal.Signal, 4096)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx, func(sig signal.Signal) {
			switch b := sig.Body.(type) {
			case signal.SourceState:
				if b.Up {
					close(up)
				}
			case signal.ReportedKill:
				kills <- sig
			}
		})
	}()
	await(t, up, "the source to be up")
	before := s.Foreign()
	forge(t, forged)

	tree := oomtest.New(t)
	box := tree.Cgroup("box", oomtest.Limit(32<<20))
	p, _ := box.Run(oomtest.Load{Comm: []byte("a),b=c\n,d")})

	var real signal.Signal
	for real.Body == nil {
		select {
		case sig := <-kills:
			k := sig.Body.(signal.ReportedKill)
			if k.Victim.PID == forged || k.Victim.Comm == "coroner-forged" {
				t.Fatalf("a forged line was believed: %+v", k)
			}
			if k.Victim.PID == p.PID {
				real = sig
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the real kill was not told")
		}
	}
	if got := s.Foreign() - before; got < 4 {
		t.Errorf("got %d foreign records, want the 4 forged ones", got)
	}
	k := real.Body.(signal.ReportedKill)
	if k.Victim.Comm != "a),b=c\n,d" || !k.Memcg || real.Recovered {
		t.Errorf("got %+v, recovered %v", k.Victim, real.Recovered)
	}
	if k.OOM != nil && (k.OOM.OOMMemcg != box.Path || *k.OOM.LimitBytes != 32<<20) { // the rate limit may have taken it
		t.Errorf("got limit of %q, want %q", k.OOM.OOMMemcg, box.Path)
	}
	if lag := real.Observed.Sub(real.Time); lag < 0 || lag > 5*time.Second {
		t.Errorf("told %v after the kernel's stamp", lag)
	}

	began := time.Now()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Run did not end on cancellation")
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("cancellation took %v", took)
	}
}

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("waited 10 s for %s", what)
	}
}
