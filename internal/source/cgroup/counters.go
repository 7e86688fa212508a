// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"errors"
	"fmt"
)

// counters are the lines that matter of memory.events, memory.events.local
// and memory.oom_control.
type counters struct {
	oom       uint64 // v2: an allocation failed for this limit
	kill      uint64 // oom_kill, since 4.13
	groupKill uint64 // oom_group_kill, v2 since 5.17
}

// moved returns what was added since before. ok is false where a count went
// down: the file is then another cgroup's.
func (c counters) moved(before counters) (d counters, ok bool) {
	if c.oom < before.oom || c.kill < before.kill || c.groupKill < before.groupKill {
		return counters{}, false
	}
	return counters{c.oom - before.oom, c.kill - before.kill, c.groupKill - before.groupKill}, true
}

var errNoNumber = errors.New("no number")

// parseCounters understands lines "key value". Other keys are skipped: a
// kernel may have more, and an old one has fewer.
func parseCounters(text []byte) (counters, error) {
	var c counters
	for n := 1; len(text) > 0; n++ {
		line := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			text = nil
		}
		key, value, _ := bytes.Cut(line, []byte(" "))
		var into *uint64
		switch string(key) {
		case "oom":
			into = &c.oom
		case "oom_kill":
			into = &c.kill
		case "oom_group_kill":
			into = &c.groupKill
		default:
			continue
		}
		v, ok := parseUint(value)
		if !ok {
			return counters{}, fmt.Errorf("line %d: %.60q: %w", n, line, errNoNumber)
		}
		*into = v
	}
	return c, nil
}

// noLimit is the least value of memory.limit_in_bytes that is no limit: the
// kernel's own "no limit" is LONG_MAX in whole pages, so it differs with the
// page size, and nobody has 4 EiB.
const noLimit = 1 << 62

// parseLimit understands memory.max ("max" or a number) and
// memory.limit_in_bytes (a huge number is none). nil: no limit.
func parseLimit(text []byte) (*int64, error) {
	text = bytes.TrimSpace(text)
	if string(text) == "max" {
		return nil, nil
	}
	v, ok := parseUint(text)
	if !ok {
		return nil, fmt.Errorf("%.60q: %w", text, errNoNumber)
	}
	if v >= noLimit {
		return nil, nil
	}
	n := int64(v)
	return &n, nil
}

// appendPIDs appends the numbers of cgroup.procs, one a line, and returns the
// start of a line that goes on. 0 is a process outside the reader's pid
// namespace: skipped.
func appendPIDs(pids []int, text []byte) (all []int, rest []byte) {
	for {
		line, next, whole := bytes.Cut(text, []byte{'\n'})
		if !whole {
			return pids, text
		}
		text = next
		if v, ok := parseUint(line); ok && v > 0 && v < 1<<31 {
			pids = append(pids, int(v))
		}
	}
}

// parseUint takes decimal digits and nothing else. It does not allocate.
func parseUint(s []byte) (uint64, bool) {
	if len(s) == 0 || len(s) > 20 {
		return 0, false
	}
	var v uint64
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := uint64(c - '0')
		if v > (1<<64-1-d)/10 {
			return 0, false
		}
		v = v*10 + d
	}
	return v, true
}
