// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// slowEvents takes long over pods.
type slowEvents struct{}

func (slowEvents) Events(ctx context.Context, pod death.Pod, at time.Time) signal.PodEvents {
	if pod.UID != "n1" {
		select {
		case <-time.After(time.Hour):
		case <-ctx.Done():
		}
	}
	return signal.PodEvents{UID: pod.UID, At: at}
}

// TestDesk_TheNodeHasItsTurn: where many pods end at once, what is asked of the
// node is answered all the same.
func TestDesk_TheNodeHasItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		emit := func(s signal.Signal) { told = append(told, s.Body.(signal.PodEvents).UID) }
		d := &desk{
			events: slowEvents{}, pods: newLookups(emit, maxPodsAsked), node: newLookups(emit, maxNodesAsked),
			words: &words{lookups: newLookups(emit, 1)}, daemons: &daemonWords{lookups: newLookups(emit, 1)}, spaces: newLookups(emit, 1),
			log: slog.New(slog.DiscardHandler),
		}
		want := func(kind inquest.WantKind, uid string) *signal.Signal {
			return d.ask(inquest.Want{Kind: kind, Source: death.SourceKube, Pod: death.Pod{UID: uid}})
		}
		for range maxPodsAsked {
			if s := want(inquest.WantEvents, "p"); s != nil {
				t.Fatalf("refused: %+v", s)
			}
		}
		if s := want(inquest.WantEvents, "p"); s == nil || !strings.Contains(s.Body.(signal.PodEvents).Error, "too many at once: 16") {
			t.Errorf("one too many: %+v", s)
		}
		if s := want(inquest.WantNodeEvents, "n1"); s != nil {
			t.Errorf("the node's are refused: %+v", s)
		}
		synctest.Wait()
		if len(told) != 1 || told[0] != "n1" {
			t.Errorf("answered: %q", told)
		}
		d.close()
		d.wait()
	})
}
