// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/host"
)

// Without a device syslog(2) will do, with CAP_SYSLOG and no file.
func TestDoctor_LogWithoutADevice(t *testing.T) {
	have, err := host.Roots{}.Capabilities()
	if err != nil || !have.Has(host.CapSyslog) || (host.Roots{}).ProbeDmesgRestrict().Status != host.No {
		t.Skipf("needs CAP_SYSLOG, and kernel.dmesg_restrict=1: %v", err)
	}
	roots := host.Roots{Root: t.TempDir()}
	if err := os.Mkdir(filepath.Dir(roots.Devkmsg()), 0o700); err != nil {
		t.Fatal(err)
	}
	for set, want := range map[host.CapSet]host.Status{0: host.No, host.CapSyslog: host.Yes} {
		var p host.Probe
		if err := host.WithCapabilities(set, func() { p = kernelLog(roots).try() }); err != nil {
			t.Fatal(err)
		}
		if p.Status != want || want == host.No && !strings.Contains(p.Remedy, "run with CAP_SYSLOG, or ") {
			t.Errorf("with %v: %+v", set.Names(), p)
		}
	}
	f := kernelLog(roots).finding(have)
	if f.Needs == nil || strings.Join(f.Needs.Capabilities, " ") != "CAP_SYSLOG" || len(f.Needs.Files)+len(f.Needs.Mounts) > 0 {
		t.Errorf("needs %+v", f.Needs)
	}
}
