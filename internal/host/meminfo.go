// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MemInfo are the sizes of /proc/meminfo in bytes, by the kernel's own names.
// Lines without a unit, which count pages of other sizes, are left out.
type MemInfo map[string]int64

// MemInfo reads /proc/meminfo.
func (r Roots) MemInfo() (MemInfo, error) {
	b, err := readFile(r.ProcPath("meminfo"), maxSmallFile)
	if err != nil {
		return nil, err
	}
	return ParseMemInfo(string(b))
}

var errMemInfo = errors.New("parse meminfo")

// ParseMemInfo understands the text of /proc/meminfo, also a recorded one.
func ParseMemInfo(text string) (MemInfo, error) {
	m := MemInfo{}
	for line := range WholeLines([]byte(text)) {
		key, rest, _ := strings.Cut(line, ":")
		value, kb := strings.CutSuffix(strings.TrimSpace(rest), " kB")
		if !kb {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 52)
		if err != nil {
			return nil, fmt.Errorf("%w: line %s: %q", errMemInfo, clip(key), clip(value))
		}
		m[key] = int64(n) << 10
	}
	if _, free := m["MemFree"]; !free || m["MemTotal"] == 0 {
		return nil, fmt.Errorf("%w: no MemTotal or MemFree", errMemInfo)
	}
	return m, nil
}

// Available is what could be had without swapping, as the kernel estimates it
// (MemAvailable, since Linux 3.14); nil where it does not.
func (m MemInfo) Available() *int64 {
	if n, ok := m["MemAvailable"]; ok {
		return &n
	}
	return nil
}
