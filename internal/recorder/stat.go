// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"bytes"
	"errors"
	"fmt"
)

// figure is one of the numbers of a reading; absent where its bit in has is 0.
type figure uint8

const (
	anon figure = iota
	file
	shmem
	inactiveFile
	kernel
	figures
)

// reading is what the files of one cgroup say at one time, in bytes.
type reading struct {
	usage, peak int64 // peak 0: the kernel keeps none
	has         uint8
	of          [figures]int64
}

func (r *reading) set(f figure, v int64) { r.has |= 1 << f; r.of[f] = v }

func (r *reading) knows(f figure) bool { return r.has&(1<<f) != 0 }

// figure returns nil where it is not known.
func (r *reading) figure(f figure) *int64 {
	if !r.knows(f) {
		return nil
	}
	v := r.of[f]
	return &v
}

// workingSet is the usage without the file pages that were not used lately, as
// the kubelet counts it to evict: usage minus inactive_file, never below 0
// (cAdvisor, container/libcontainer/handler.go, setMemoryStats; total_inactive_file
// on cgroup v1). Where the kernel does not tell inactive_file it is the usage.
func (r *reading) workingSet() int64 { return max(0, r.usage-r.of[inactiveFile]) }

// slow is what is read now and then, of files that are not kept open.
type slow struct {
	limit                      int64 // 0: none, or not known
	kernel                     int64 // where it is not in memory.stat
	pressure                   float64
	kernelKnown, pressureKnown bool
}

var errNumber = errors.New("no number")

// parse takes the wanted lines of memory.stat, of the cgroup and all below it,
// and stops after the last of them. Other lines are skipped, and one without
// an end, which may be cut. all is true when it found what each kernel has.
func (r *reading) parse(text []byte, version int) (all bool, err error) {
	if version == 1 {
		return r.parseV1(text)
	}
	return r.parseV2(text)
}

// parseV1 takes the totals, which are at the end of the file.
func (r *reading) parseV1(text []byte) (bool, error) {
	for len(text) > 0 {
		var line []byte
		if line, text = nextLine(text); !bytes.HasPrefix(line, []byte("total_")) {
			continue
		}
		key, value := cutKey(line)
		var f figure
		switch string(key) {
		case "total_rss":
			f = anon
		case "total_cache":
			f = file
		case "total_shmem":
			f = shmem
		case "total_inactive_file":
			f = inactiveFile
		default:
			continue
		}
		v, err := parseNumber(value)
		if err != nil {
			return false, fmt.Errorf("%s: %w", key, err)
		}
		r.set(f, v)
		if f == inactiveFile {
			return true, nil
		}
	}
	return false, nil
}

// parseV2 takes what the kernel calls kernel (since 5.18), and before that
// adds up what that is the sum of (Documentation/admin-guide/cgroup-v2.rst).
func (r *reading) parseV2(text []byte) (bool, error) {
	var sum int64
	for len(text) > 0 {
		var line []byte
		line, text = nextLine(text)
		key, value := cutKey(line)
		f, part := kernel, false
		switch string(key) {
		case "anon":
			f = anon
		case "file":
			f = file
		case "shmem":
			f = shmem
		case "inactive_file":
			f = inactiveFile
		case "kernel":
		case "kernel_stack", "pagetables", "sec_pagetables", "percpu", "vmalloc", "slab":
			part = true
		default:
			continue
		}
		if part && r.knows(kernel) {
			continue
		}
		v, err := parseNumber(value)
		if err != nil {
			return false, fmt.Errorf("%s: %w", key, err)
		}
		if part {
			sum += v
		} else {
			r.set(f, v)
		}
		if string(key) == "slab" {
			r.set(kernel, max(0, sum))
		}
		if r.knows(kernel) && r.knows(inactiveFile) {
			return true, nil
		}
	}
	return false, nil
}

// nextLine returns nothing for a line without an end.
func nextLine(text []byte) (line, rest []byte) {
	i := bytes.IndexByte(text, '\n')
	if i < 0 {
		return nil, nil
	}
	return text[:i], text[i+1:]
}

func cutKey(line []byte) (key, value []byte) {
	i := bytes.IndexByte(line, ' ')
	if i < 0 {
		return line, nil
	}
	return line[:i], line[i+1:]
}

// parseNumber takes decimal digits, at most those of an int64.
func parseNumber(s []byte) (int64, error) {
	if len(s) == 0 || len(s) > 19 {
		return 0, fmt.Errorf("%.30q: %w", s, errNumber)
	}
	var v uint64
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%.30q: %w", s, errNumber)
		}
		v = v*10 + uint64(c-'0')
	}
	if v > 1<<63-1 {
		return 0, fmt.Errorf("%.30q: %w", s, errNumber)
	}
	return int64(v), nil
}

// trimmed is without the end of the line.
func trimmed(text []byte) []byte { return bytes.TrimSuffix(text, []byte{'\n'}) }

// noLimit is the least memory.limit_in_bytes that is none: the kernel's own is
// LONG_MAX in whole pages.
const noLimit = 1 << 62

// parseLimit understands memory.max and memory.limit_in_bytes; 0: no limit.
// A limit of 0, which kills all that asks for memory, is told as one byte.
func parseLimit(text []byte) (int64, error) {
	text = trimmed(text)
	if string(text) == "max" {
		return 0, nil
	}
	v, err := parseNumber(text)
	if err != nil || v >= noLimit {
		return 0, err
	}
	return max(1, v), nil
}

// parsePressure takes avg10 of the line "some" of memory.pressure, in percent
// (Documentation/accounting/psi.rst).
func parsePressure(text []byte) (float64, bool) {
	line, _ := nextLine(text)
	rest, ok := bytes.CutPrefix(line, []byte("some avg10="))
	if !ok {
		return 0, false
	}
	number, _ := cutKey(rest)
	whole, part, ok := bytes.Cut(number, []byte{'.'})
	if !ok || len(part) != 2 {
		return 0, false
	}
	a, err1 := parseNumber(whole)
	b, err2 := parseNumber(part)
	if err1 != nil || err2 != nil || a > 100 {
		return 0, false
	}
	return float64(a) + float64(b)/100, true
}
