// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// CapSet is a set of capabilities (capabilities(7)), as bits.
type CapSet uint64

// The capabilities that coroner has a use for, and those that stand in for
// them. Bits of include/uapi/linux/capability.h; the last two are since 5.8.
const (
	CapDACOverride   CapSet = 1 << 1
	CapDACReadSearch CapSet = 1 << 2
	CapSysPtrace     CapSet = 1 << 19
	CapSysAdmin      CapSet = 1 << 21
	CapSysResource   CapSet = 1 << 24
	CapSyslog        CapSet = 1 << 34
	CapPerfmon       CapSet = 1 << 38
	CapBPF           CapSet = 1 << 39
)

// capNames are in the order of their bits.
var capNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
	"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
	"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// Has tells whether all of other are in the set.
func (c CapSet) Has(other CapSet) bool { return c&other == other }

// Names lists the set as CAP_BPF and so on, in the order of the bits.
func (c CapSet) Names() []string {
	var out []string
	for bit := range 64 {
		switch {
		case c&(1<<bit) == 0:
		case bit < len(capNames):
			out = append(out, "CAP_"+capNames[bit])
		default:
			out = append(out, "CAP_"+strconv.Itoa(bit))
		}
	}
	return out
}

// String names the set in one line; the empty one is "none".
func (c CapSet) String() string {
	if c == 0 {
		return "none"
	}
	return strings.Join(c.Names(), " ")
}

// Capabilities reads what this process may do now (its effective set).
func (r Roots) Capabilities() (CapSet, error) {
	b, err := readFile(r.ProcPath("self/status"), maxSmallFile)
	if err != nil {
		return 0, err
	}
	return parseCapEff(string(b))
}

var errNoCapEff = errors.New("parse status: no line CapEff")

func parseCapEff(status string) (CapSet, error) {
	s, ok := statusLine(status, "CapEff")
	if !ok {
		return 0, errNoCapEff
	}
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("parse status: CapEff: %q", clip(s))
	}
	return CapSet(n), nil
}
