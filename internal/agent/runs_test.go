// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestRoster_EngineOfAnySpeed plays a Docker whose events and answers come
// late, each at its own pace: an answer is of what was when the engine was
// asked, or of later, and says no state where events came meanwhile. The truth
// is how often the container was started.
func TestRoster_EngineOfAnySpeed(t *testing.T) {
	for seed := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		st := newStage(t)
		tell := func(at time.Time, b signal.Body) {
			st.r.feed(signal.Signal{Time: at, Source: "docker", Body: b}, &death.Container{ID: "a"}, "a")
		}
		starts := 1 + rnd.IntN(6)
		events, runs := engineLife(rnd, st.now, starts)
		known := "" // the state that was told last
		for i, e := range events {
			if e.exit {
				known = ""
				tell(e.at, exited("a", 1))
			} else if known != "running" {
				known = "running"
				tell(e.at, state("a", "running"))
			}
			for range 1 + rnd.IntN(2) { // it is asked, and answers
				// The engine is up to five events ahead of what it has told.
				ahead := i + rnd.IntN(min(5, len(events)-i))
				b := engineAnswer(events[ahead].at.Add(time.Millisecond), runs)
				if rnd.IntN(2) == 0 && ahead < len(events)-1 {
					b.State = "" // other events came meanwhile
				} else if b.State != "" && ahead == i {
					known = b.State
				} else {
					b.State = ""
				}
				tell(events[ahead].at, b)
			}
		}
		if c, _ := st.shown("a"); c.Restarts != starts-1 {
			t.Fatalf("seed %d: %d restarts, want %d", seed, c.Restarts, starts-1)
		}
	}
}

// happening is a start or an end, when the engine tells of it.
type happening struct {
	at   time.Time
	exit bool
}

// engineLife is a container that was started so often, and its runs.
func engineLife(rnd *rand.Rand, at time.Time, starts int) (events []happening, runs [][2]time.Time) {
	step := func(most int) time.Time {
		at = at.Add(time.Millisecond * time.Duration(2+rnd.IntN(most)))
		return at
	}
	for i := range starts {
		started := step(400)
		events = append(events, happening{at: step(20)})
		runs = append(runs, [2]time.Time{started})
		if i < starts-1 || rnd.IntN(2) == 0 {
			runs[i][1] = step(800)
			events = append(events, happening{at: step(5), exit: true})
		}
	}
	return events, runs
}

// engineAnswer is what an engine says of a container at that moment.
func engineAnswer(at time.Time, runs [][2]time.Time) signal.ContainerSeen {
	b := state("a", "created")
	for i, run := range runs {
		if run[0].After(at) {
			break
		}
		b.State, b.Started, b.PID = "running", run[0], 1000+i
		if !run[1].IsZero() && !run[1].After(at) {
			b.State, b.PID = "exited", 0
		}
	}
	return b
}
