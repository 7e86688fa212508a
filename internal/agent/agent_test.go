// SPDX-License-Identifier: Apache-2.0

package agent

import "testing"

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
