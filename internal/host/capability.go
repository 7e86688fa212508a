// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"strconv"
)

// capSet is a set of capabilities as /proc/PID/status prints it.
type capSet uint64

// Bits of include/uapi/linux/capability.h. The last two are since Linux 5.8.
const (
	capSysAdmin = 21
	capPerfmon  = 38
	capBPF      = 39
)

func (c capSet) has(bit int) bool { return c&(1<<bit) != 0 }

// capabilities reads what this process may do now.
func (r Roots) capabilities() (capSet, error) {
	b, err := readFile(r.ProcPath("self/status"), maxSmallFile)
	if err != nil {
		return 0, err
	}
	return parseCapEff(string(b))
}

var errNoCapEff = errors.New("parse status: no line CapEff")

func parseCapEff(status string) (capSet, error) {
	s, ok := statusLine(status, "CapEff")
	if !ok {
		return 0, errNoCapEff
	}
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("parse status: CapEff: %q", clip(s))
	}
	return capSet(n), nil
}
