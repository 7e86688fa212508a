// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPark: what is there ends a wait at once, before it and in the midst of
// it; nothing ends one in time.
func TestPark(t *testing.T) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(event)
	p, err := newPark(event)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	fds := []unix.PollFd{{Fd: int32(event), Events: unix.POLLIN}}
	say := func() {
		if _, err := unix.Write(event, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Error(err)
		}
	}
	wait := func(d time.Duration, want int) {
		t.Helper()
		began := time.Now()
		n, err := p.wait(fds, began.Add(d))
		if took := time.Since(began); err != nil || n != want || want == 0 && took < d || want > 0 && took > d/2 {
			t.Errorf("got %d after %v of %v (%v), want %d", n, took, d, err, want)
		}
	}
	wait(50*time.Millisecond, 0)
	say()
	for range 3 {
		wait(time.Minute, 1) // it is still there
	}
	// A thread that was off the CPU comes when the time is over: what is there
	// counts all the same.
	if n, err := p.wait(fds, time.Now().Add(-time.Second)); err != nil || n != 1 || fds[0].Revents&unix.POLLIN == 0 {
		t.Errorf("got %d (%v) too late, want 1", n, err)
	}
	if _, err := unix.Read(event, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	wait(50*time.Millisecond, 0)
	later := time.AfterFunc(50*time.Millisecond, say)
	defer later.Stop()
	wait(time.Minute, 1)
}
