// SPDX-License-Identifier: Apache-2.0

package oomtest

import (
	"os"
	"testing"
)

// Need is something that not every machine has.
type Need int

// What a test can need.
const (
	RealKills Need = iota // root, and a memory controller whose cgroups it may make
	V1                    // the memory controller on cgroup v1
	V2                    // the memory controller on cgroup v2
	TwoNodes              // a second NUMA node
	InVM                  // a machine of its own, where all memory may be used up
)

// Require skips the test with a reason where a need is not met. With
// CORONER_CI=1 real kills are no matter of luck: a machine that cannot make
// them fails.
func Require(t testing.TB, needs ...Need) {
	t.Helper()
	for _, n := range needs {
		why := missing(n)
		if why == "" {
			continue
		}
		if n == RealKills && os.Getenv("CORONER_CI") == "1" {
			t.Fatalf("CORONER_CI=1, but no real OOM kills here: %s", why)
		}
		t.Skipf("needs a machine that this one is not: %s", why)
	}
}

// Has tells whether a need is met here.
func Has(n Need) bool { return missing(n) == "" }

// missing says why a need is not met, "" when it is.
func missing(n Need) string {
	h, err := find()
	switch {
	case n == TwoNodes:
		if _, err := os.Stat("/sys/devices/system/node/node1"); err != nil {
			return "it has one NUMA node"
		}
		return ""
	case n == InVM:
		if os.Getenv("CORONER_VM") == "" {
			return "not in the virtual machine of test/vm"
		}
		return ""
	case err != nil:
		return err.Error()
	case n == V1 && h.version != 1:
		return "its memory controller is on cgroup v2"
	case n == V2 && h.version != 2:
		return "its memory controller is on cgroup v1"
	case os.Geteuid() != 0:
		return "not root"
	}
	return h.probe()
}
