// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/journal"
	"github.com/coroner-dev/coroner/internal/signal"
)

const (
	// maxDaemonWords bounds the deaths of which it is looked up at once what an
	// OOM daemon said.
	maxDaemonWords = 64
	// spokenBy is when a daemon has written what it did, and journald has it.
	spokenBy = time.Second
)

// daemonWords looks up what programs that free memory left behind of a death:
// attributes of the cgroup, which may be gone soon, and lines in the journal.
type daemonWords struct {
	attributes func(path string) (ooms, killed *int64)
	lines      func(journal.Ask) ([]signal.JournalLine, error)
	bootID     string
	turn       chan struct{} // of one: the journal is read by one at a time

	*lookups
}

func newDaemonWords(roots host.Roots, bootID string, emit func(signal.Signal)) *daemonWords {
	return &daemonWords{
		attributes: roots.OOMDAttributes,
		lines:      func(a journal.Ask) ([]signal.JournalLine, error) { return journal.Lines(roots, a) },
		bootID:     bootID, turn: make(chan struct{}, 1), lookups: newLookups(emit, maxDaemonWords),
	}
}

// ask begins to look up what is wanted, and never waits. Where there are too
// many at once, the answer is returned.
func (d *daemonWords) ask(w inquest.Want) (refused *signal.Signal) {
	if d.find(func(ctx context.Context) *signal.Signal { return d.look(ctx, w) }) {
		return nil
	}
	return daemonAnswer(w, signal.OOMDaemonWord{Error: fmt.Sprintf("too many at once: %d are looked up already", maxDaemonWords)})
}

// look reads what is there at once, and what is there a little later.
func (d *daemonWords) look(ctx context.Context, w inquest.Want) *signal.Signal {
	var b signal.OOMDaemonWord
	b.OOMs, b.Killed = d.attributes(w.Cgroup)
	select {
	case <-time.After(spokenBy):
	case <-ctx.Done():
		return nil
	}
	if ooms, killed := d.attributes(w.Cgroup); ooms != nil {
		b.OOMs, b.Killed = ooms, killed
	}
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return nil
	}
	lines, err := d.lines(journal.Ask{Units: w.Units, Since: w.Since, Until: w.At.Add(2 * spokenBy), BootID: d.bootID})
	b.Lines = lines
	if err != nil {
		b.Error = err.Error()
	}
	return daemonAnswer(w, b)
}

func daemonAnswer(w inquest.Want, b signal.OOMDaemonWord) *signal.Signal {
	now := time.Now()
	b.ID, b.Path, b.At = w.ContainerID, w.Cgroup, w.At
	return &signal.Signal{Time: now, Observed: now, Source: death.SourceJournal, Body: b}
}
