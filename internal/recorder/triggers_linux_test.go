// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/oomtest"
)

// waited is how long tasks of a cgroup have waited for memory, as the kernel
// says; an error where it does not.
func waited(c *oomtest.Cgroup) (d time.Duration, err error) {
	b, err := os.ReadFile(filepath.Join(c.Dir, "memory.pressure"))
	if err != nil {
		return 0, err
	}
	_, total, _ := strings.Cut(string(b), "total=")
	var us int64
	_, err = fmt.Sscan(total, &us)
	return time.Duration(us) * time.Microsecond, err
}

// TestRecorder_Stalls: a container without a limit, whose use no rule on its
// rate looks at, begins to wait for memory.
func TestRecorder_Stalls(t *testing.T) {
	oomtest.Require(t, oomtest.V2)
	tree := oomtest.New(t)
	box := tree.Cgroup("box")
	if _, err := waited(box); err != nil {
		t.Skipf("needs a kernel that this one is not: with pressure stall information: %v", err)
	}
	if err := os.WriteFile(filepath.Join(box.Dir, "memory.high"), []byte("8M"), 0); err != nil {
		t.Fatal(err)
	}
	r := New(Options{})
	run(t, r.Run)
	poll := func(f func() error) {
		t.Helper()
		if err := oomtest.Poll(30*time.Second, f); err != nil {
			t.Fatal(err)
		}
	}
	densely := func() int { r.mu.Lock(); defer r.mu.Unlock(); return len(r.dense) }

	r.Watch(named(box))
	poll(func() error {
		if s := r.Stats(); s.Triggers != 1 || densely() != 0 || s.Stalls != 0 {
			return fmt.Errorf("at rest: %+v, %d read densely", s, densely())
		}
		return nil
	})
	p := box.Start(oomtest.Load{Bytes: 64 << 20, Rate: 16 << 20})
	p.Go()
	poll(func() error {
		if s := r.Stats(); s.Stalls == 0 || densely() != 1 {
			return fmt.Errorf("waiting: %+v, %d read densely", s, densely())
		}
		return nil
	})
	// The kernel adds up what its files show each two seconds.
	poll(func() error {
		d, err := waited(box)
		if err == nil && d < 150*time.Millisecond {
			err = fmt.Errorf("told of a cgroup that waited %v", d)
		}
		if err != nil {
			return err
		}
		if h, ok := r.History(named(box)); !ok || h.Last.SomeAvg10 == nil || *h.Last.SomeAvg10 == 0 {
			return errors.New("the pressure is not known")
		}
		return nil
	})
	p.Kill(9)
	p.Wait()
	box.Remove()
	poll(func() error {
		if s := r.Stats(); s.Triggers != 0 || s.Recorded != 0 {
			return fmt.Errorf("it has gone: %+v", s)
		}
		return nil
	})
}
