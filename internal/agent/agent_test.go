// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strconv"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

func TestCarry(t *testing.T) {
	for _, tc := range []struct {
		name   string
		state  map[string]string
		vmstat uint64
		want   carried
	}{
		{"first run", nil, 40, carried{kills: 0, vmstat: 40}},
		{"restart", map[string]string{stateBootID: "b", stateNodeKills: "7", stateVMStat: "40"}, 40, carried{kills: 7, vmstat: 40}},
		{"three kills while it was down", map[string]string{stateBootID: "b", stateNodeKills: "7", stateVMStat: "40"}, 43, carried{kills: 10, vmstat: 43}},
		{"two kills since a reboot", map[string]string{stateBootID: "a", stateNodeKills: "7", stateVMStat: "40", stateUnattributed: "1"}, 2, carried{kills: 9, vmstat: 2, unattributed: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := carry(tc.state, "b", tc.vmstat); got != tc.want {
				t.Errorf("carry = %+v, want %+v", got, tc.want)
			}
		})
	}
}

// TestEndsTold: engines are asked for the ends since the last that was told, or
// since the first run where none was told yet.
func TestEndsTold(t *testing.T) {
	began := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	first := func(ago time.Duration) map[string]string {
		return map[string]string{stateFirstRun: strconv.FormatInt(began.Add(-ago).UnixNano(), 10)}
	}
	process := death.Death{Subject: death.SubjectProcess, Time: began.Add(-time.Minute)}
	ended := death.Death{Subject: death.SubjectContainer, Time: began.Add(-time.Hour)}
	for _, tc := range []struct {
		name  string
		state map[string]string
		known []death.Death
		ago   time.Duration // 0: they are not asked
	}{
		{"first run", nil, nil, 0},
		{"the last end", first(2 * time.Hour), []death.Death{ended, process}, time.Hour},
		{"no end yet", first(2 * time.Hour), []death.Death{process}, 2 * time.Hour},
		{"none of late", first(1000 * time.Hour), nil, restoreWindow},
		{"not all is known", first(2 * time.Hour), make([]death.Death, restoreLimit), 0},
		{"damaged", map[string]string{stateFirstRun: "x"}, nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var want time.Time
			if tc.ago > 0 {
				want = began.Add(-tc.ago)
			}
			if got := endsTold(tc.state, tc.known, began); !got.Equal(want) {
				t.Errorf("ends are told up to %v, want %v", got, want)
			}
		})
	}
}
