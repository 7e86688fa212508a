// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// PerCPUFree is the memory that is free and on no zone's list: each CPU keeps
// pages of its own, since Linux 6.7 up to an eighth of the machine, and MemFree
// does not count them (count in /proc/zoneinfo).
func (r Roots) PerCPUFree() (int64, error) {
	b, err := readFile(r.ProcPath("zoneinfo"), 16*maxSmallFile)
	if err != nil {
		return 0, err
	}
	pages, err := parsePerCPUFree(string(b))
	return pages * int64(os.Getpagesize()), err
}

func parsePerCPUFree(text string) (int64, error) {
	var sum int64
	for line := range WholeLines([]byte(text)) {
		s, ok := strings.CutPrefix(strings.TrimSpace(line), "count:")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 40)
		if err != nil {
			return 0, fmt.Errorf("parse zoneinfo: count: %q", clip(s))
		}
		sum += int64(n)
	}
	return sum, nil
}
