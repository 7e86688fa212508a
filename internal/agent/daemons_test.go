// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/journal"
	"github.com/coroner-dev/coroner/internal/signal"
)

func wantDaemon(at time.Time) inquest.Want {
	return inquest.Want{Kind: inquest.WantDaemon, Source: death.SourceJournal, ContainerID: "id", Cgroup: "/c", Units: []string{"earlyoom.service"}, Since: at.Add(-time.Minute), At: at}
}

// TestDaemonWords_Look: the attributes are read at once, while the cgroup is
// there, and again when the program has had time to count; then the journal.
func TestDaemonWords_Look(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, one, three := time.Now(), int64(1), int64(3)
		line := signal.JournalLine{Time: at, Unit: "earlyoom.service", Text: "x"}
		for _, tc := range []struct {
			name string
			read [][2]*int64
			err  error
			want signal.OOMDaemonWord
		}{
			{"counted meanwhile", [][2]*int64{{&one, nil}, {&one, &three}}, nil, signal.OOMDaemonWord{OOMs: &one, Killed: &three}},
			{"gone meanwhile", [][2]*int64{{&one, nil}, {nil, nil}}, nil, signal.OOMDaemonWord{OOMs: &one}},
			{"journal not read", [][2]*int64{{nil, nil}, {nil, nil}}, errors.New("denied"), signal.OOMDaemonWord{Error: "denied"}},
		} {
			got := make(chan signal.Signal, 1)
			d := newDaemonWords(host.Roots{Root: t.TempDir()}, "boot", func(s signal.Signal) { got <- s })
			d.attributes = func(path string) (ooms, killed *int64) {
				if path != "/c" {
					t.Errorf("attributes of %q", path)
				}
				x := tc.read[0]
				tc.read = tc.read[1:]
				return x[0], x[1]
			}
			d.lines = func(a journal.Ask) ([]signal.JournalLine, error) {
				if diff := cmp.Diff(journal.Ask{Units: []string{"earlyoom.service"}, Since: at.Add(-time.Minute), Until: at.Add(2 * time.Second), BootID: "boot"}, a); diff != "" {
					t.Errorf("%s: asked (-want +got):\n%s", tc.name, diff)
				}
				return []signal.JournalLine{line}, tc.err
			}
			if refused := d.ask(wantDaemon(at)); refused != nil {
				t.Fatalf("%s: refused %+v", tc.name, refused)
			}
			tc.want.ID, tc.want.Path, tc.want.At, tc.want.Lines = "id", "/c", at, []signal.JournalLine{line}
			if diff := cmp.Diff(signal.Body(tc.want), (<-got).Body); diff != "" {
				t.Errorf("%s: answer (-want +got):\n%s", tc.name, diff)
			}
			d.end()
			d.wait()
		}
	})
}

// TestDaemonWords_Bounds: too many at once are refused, and nothing is told
// after the end.
func TestDaemonWords_Bounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemonWords(host.Roots{Root: t.TempDir()}, "boot", func(s signal.Signal) { t.Errorf("told %+v", s) })
		for range maxDaemonWords {
			if refused := d.ask(wantDaemon(time.Now())); refused != nil {
				t.Fatalf("refused %+v", refused)
			}
		}
		refused := d.ask(wantDaemon(time.Now()))
		if refused == nil || refused.Body.(signal.OOMDaemonWord).Error == "" {
			t.Errorf("refused %+v", refused)
		}
		d.end()
		d.wait()
	})
}
