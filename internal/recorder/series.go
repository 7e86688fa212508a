// SPDX-License-Identifier: Apache-2.0

package recorder

const (
	// seconds and tens are how many samples are kept of each kind.
	seconds = 120
	tens    = 360
	// unit is what samples are kept in, the smallest page there is: 32 bits
	// hold 16 TiB.
	unit = 4096
)

// sample is a working set and a usage, in units.
type sample struct{ workingSet, usage uint32 }

// absent is the usage of a sample that was not taken.
const absent = 1<<32 - 1

func sampleOf(workingSet, usage int64) sample { return sample{units(workingSet), units(usage)} }

func units(n int64) uint32 { return uint32(min(max(0, n)/unit, absent-1)) }

// add keeps the one with the higher working set.
func (s *sample) add(other sample) {
	if s.usage == absent || other.workingSet > s.workingSet || other.workingSet == s.workingSet && other.usage > s.usage {
		*s = other
	}
}

// series are the samples of one cgroup: each second of the last two minutes,
// and each ten seconds of the last hour, of either the highest. Times are
// seconds of a clock that only goes forward.
type series struct {
	first, last int64
	some        bool
	seconds     [seconds]sample // by time modulo seconds
	tens        [tens]sample    // by time / 10 modulo tens
}

// add takes samples in the order of time.
func (s *series) add(at int64, v sample) {
	if !s.some {
		s.some, s.first, s.last = true, at, at
		clearAll(s.seconds[:])
		clearAll(s.tens[:])
	}
	at = max(at, s.last)
	for t := max(s.last, at-seconds) + 1; t <= at; t++ {
		s.seconds[t%seconds].usage = absent
	}
	for t := max(s.last/10, at/10-tens) + 1; t <= at/10; t++ {
		s.tens[t%tens].usage = absent
	}
	s.last = at
	s.seconds[at%seconds].add(v)
	s.tens[at/10%tens].add(v)
}

func clearAll(s []sample) {
	for i := range s {
		s[i] = sample{usage: absent}
	}
}

// appendTo appends all that is kept, oldest first, each time once, as unix
// seconds, working set and usage in bytes. zero is the unix time of the
// clock's zero.
func (s *series) appendTo(out [][3]int64, zero int64) [][3]int64 {
	if !s.some {
		return out
	}
	put := func(at int64, v sample) {
		if v.usage != absent {
			out = append(out, [3]int64{zero + at, int64(v.workingSet) * unit, int64(v.usage) * unit})
		}
	}
	from := max(s.first, s.last-seconds+1)
	if from > s.first {
		from = (from + 9) / 10 * 10 // what is before belongs to a whole ten
		for t := max(s.first/10, s.last/10-tens+1); t < from/10; t++ {
			put(max(t*10, s.first), s.tens[t%tens])
		}
	}
	for t := from; t <= s.last; t++ {
		put(t, s.seconds[t%seconds])
	}
	return out
}
