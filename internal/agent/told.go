// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/coroner-dev/coroner/internal/inquest"
)

// The names under which the history keeps, beside the deaths and in the same
// transaction, how much of what the kernel counted they tell.
const (
	stateKmsgSeq  = "kmsg_seq"
	stateToldNode = "told_node" // empty: no next run may go on from it
	toldCgroup    = "told/"     // and the cgroup's id: "OWN BELOW"; empty: removed
)

// toldState is c as the history keeps it.
func toldState(c inquest.ToldChange) map[string]string {
	state := make(map[string]string, len(c.Cgroups)+len(c.Removed)+2)
	if c.LogSeq > 0 {
		state[stateKmsgSeq] = strconv.FormatUint(c.LogSeq, 10)
	}
	if c.Node != nil {
		state[stateToldNode] = strconv.FormatUint(*c.Node, 10)
	}
	for _, id := range c.Removed {
		state[toldCgroup+strconv.FormatUint(id, 10)] = ""
	}
	for id, t := range c.Cgroups {
		state[toldCgroup+strconv.FormatUint(id, 10)] = fmt.Sprintf("%d %d", t.Own, t.Below)
	}
	if c.Void {
		state[stateToldNode] = ""
	}
	return state
}

// toldBefore is what earlier runs told, if one ran and this one can go on from
// there. After a reboot the counters began at nothing.
func toldBefore(state map[string]string, bootID string) (inquest.Told, bool) {
	if state[stateToldNode] == "" || bootID == "" {
		return inquest.Told{}, false
	}
	if state[stateBootID] != bootID {
		return inquest.Told{}, true
	}
	t := inquest.Told{Node: number(state[stateToldNode]), Cgroups: map[uint64]inquest.CgroupTold{}}
	for name, value := range state {
		id, ok := strings.CutPrefix(name, toldCgroup)
		if !ok || value == "" {
			continue
		}
		own, below, _ := strings.Cut(value, " ")
		t.Cgroups[number(id)] = inquest.CgroupTold{Own: number(own), Below: number(below)}
	}
	return t, true
}
