// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"testing"

	"github.com/coroner-dev/coroner/internal/signal"
)

func TestBeats(t *testing.T) {
	kill := func(target, sender, sig int) signal.Kill {
		return signal.Kill{Target: signal.Task{TID: target}, Sender: signal.Task{TID: sender}, Signal: sig}
	}
	var b beats
	told := func(k signal.Kill, times int) (n int) {
		for range times {
			if b.one(k) {
				n++
			}
		}
		return n
	}
	for _, tt := range []struct {
		name string
		kill signal.Kill
		want int
	}{
		{"of one sender", kill(7, 8, 10), beatMost},
		{"another signal of it", kill(7, 8, 15), beatMost},
		{"another sender", kill(7, 9, 10), beatMost},
		{"another target", kill(6, 8, 10), beatMost},
		{"its own", kill(7, 7, 10), beatMost},
	} {
		if n := told(tt.kill, 100); n != tt.want {
			t.Errorf("%s: told %d of 100, want %d", tt.name, n, tt.want)
		}
	}
	if others, own := b.next(); others != 4*(100-beatMost) || own != 100-beatMost {
		t.Errorf("held back %d of others, %d of its own; want %d, %d", others, own, 4*(100-beatMost), 100-beatMost)
	}
	if n := told(kill(7, 8, 10), 100); n != beatMost {
		t.Errorf("a second later: told %d, want %d", n, beatMost)
	}
	b.next()

	// What goes to no first process is neither told nor held back.
	k := kill(7, 8, 10)
	b.one(k)
	k.Target.Init = ptr(false)
	if b.learn(k) {
		t.Error("a signal to another than a first process is to be told")
	}
	told(k, 100)
	// A thread's signal to another of its process is the process's own.
	k = kill(20, 21, 10)
	b.one(k)
	k.Target.PID, k.Sender.PID, k.Target.Init = 20, 20, ptr(true)
	if !b.learn(k) {
		t.Error("a signal to a first process is not to be told")
	}
	told(k, 100)
	if others, own := b.next(); others != 0 || own != 101-beatMost {
		t.Errorf("held back %d of others, %d of its own; want 0, %d", others, own, 101-beatMost)
	}
	for i := range 2 * maxBeats {
		b.one(kill(i, 8, 10))
		if len(b.seen) > maxBeats {
			t.Fatalf("%d beats are kept, want %d at most", len(b.seen), maxBeats)
		}
	}
}
