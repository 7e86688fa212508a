// SPDX-License-Identifier: Apache-2.0

package tracepoint

import "github.com/coroner-dev/coroner/internal/signal"

// The bounds of what mode tracefs tells of signals other than SIGKILL, as those
// of probe.bpf.c: anybody may send them, as many as he likes.
const (
	beatMost = 4    // told of one beat between two housekeepings, which are a second apart
	maxBeats = 4096 // that are known
)

// beat is one signal from one sender to one target, by their threads.
type beat struct{ target, sender, signal int }

// beats holds back signals that come again and again.
type beats struct {
	seen map[beat]*heard
	// What was held back: signals of others, of the process itself.
	others, own uint64
}

type heard struct {
	times int
	// about is false where the target is known to be no first process, own true
	// where it is the sender.
	about, own bool
}

func beatOf(k signal.Kill) beat { return beat{k.Target.TID, k.Sender.TID, k.Signal} }

// one more? It is counted, and false where it is one too many.
func (b *beats) one(k signal.Kill) bool {
	h := b.seen[beatOf(k)]
	if h == nil {
		if b.seen == nil || len(b.seen) >= maxBeats {
			b.seen = make(map[beat]*heard)
		}
		h = &heard{about: true, own: k.Target.TID == k.Sender.TID}
		b.seen[beatOf(k)] = h
	}
	if h.times++; h.times <= beatMost {
		return true
	}
	switch {
	case !h.about:
	case h.own:
		b.own++
	default:
		b.others++
	}
	return false
}

// learn takes what procfs knew of a signal's tasks, and tells whether it can be
// one to a container's first process.
func (b *beats) learn(k signal.Kill) bool {
	about := k.Target.Init == nil || *k.Target.Init
	if h := b.seen[beatOf(k)]; h != nil {
		h.about = about
		h.own = h.own || k.Sender.PID != 0 && k.Sender.PID == k.Target.PID
	}
	return about
}

// next begins another second, and gives what was held back in the last.
func (b *beats) next() (others, own uint64) {
	others, own = b.others, b.own
	*b = beats{seen: b.seen}
	clear(b.seen)
	return others, own
}
