// SPDX-License-Identifier: Apache-2.0

//go:build linux

package privileges

import (
	"fmt"
	"testing"

	"github.com/coroner-dev/coroner/internal/host"
)

// enough is what the systemd unit gives.
const enough = host.CapBPF | host.CapPerfmon | host.CapSyslog

// TestAgent_FewRights: the whole agent reports a real kill with three
// capabilities, as root and as somebody else with ambient ones.
func TestAgent_FewRights(t *testing.T) {
	bin := build(t)
	for _, uid := range []int{0, nobody} {
		t.Run(fmt.Sprint("user ", uid), func(t *testing.T) {
			o := measure(t, bin, rows()[len(rows())-1], uid, enough)
			if !o.works {
				t.Errorf("up %v, lacking: %s", o.up, o.why)
			}
		})
	}
}
