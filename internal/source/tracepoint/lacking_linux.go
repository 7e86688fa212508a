// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/coroner-dev/coroner/internal/host"
)

// explain says what is lacking for programs in the kernel, and how to get it.
// What the loader says at length is for the log.
func explain(r host.Roots, err error) error {
	switch {
	case confidential(r):
		return fmt.Errorf("kernel is locked down (lockdown=confidentiality): programs may not read its memory: %w", os.ErrPermission)
	case errors.Is(err, errNoTypes):
		return fmt.Errorf("needs a kernel built with CONFIG_DEBUG_INFO_BTF (%s): %w",
			r.SysPath("kernel", "btf", "vmlinux"), host.ErrNotSupported)
	case errors.Is(err, os.ErrPermission):
		if lacking := lackingCaps(r); lacking != "" {
			return fmt.Errorf("needs %s, which this process has not got: %w", lacking, os.ErrPermission)
		}
		return fmt.Errorf("kernel refuses programs: look for seccomp, a security module or, on 5.10, "+
			"the limit of locked memory: %w", os.ErrPermission)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("needs Linux 5.10 or later: %w", err)
	}
	return err
}

// confidential tells whether the kernel keeps its memory from root, too.
func confidential(r host.Roots) bool {
	b, err := os.ReadFile(r.SysPath("kernel", "security", "lockdown"))
	return err == nil && strings.Contains(string(b), "[confidentiality]")
}

// lackingCaps names the capabilities that this process has not got.
func lackingCaps(r host.Roots) string {
	b, err := os.ReadFile(r.ProcPath("self", "status"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return lackingOf(strings.TrimSpace(v))
		}
	}
	return ""
}

// lackingOf takes the hexadecimal set of /proc/PID/status.
func lackingOf(effective string) string {
	set, err := strconv.ParseUint(effective, 16, 64)
	if err != nil || set&(1<<unix.CAP_SYS_ADMIN) != 0 {
		return "" // stands for both
	}
	var names []string
	if set&(1<<unix.CAP_BPF) == 0 {
		names = append(names, "CAP_BPF")
	}
	if set&(1<<unix.CAP_PERFMON) == 0 {
		names = append(names, "CAP_PERFMON")
	}
	return strings.Join(names, " and ")
}
