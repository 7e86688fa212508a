// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/coroner-dev/coroner/internal/host"
)

// TestLoop_AskedWithinATick: a cgroup stands in a tick twice where it is read
// densely and its slot begins. What is asked for between the two is read whole
// in the next tick.
func TestLoop_AskedWithinATick(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte("memory\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		m := &machine{t: t, version: 2, dir: dir, Recorder: New(Options{Roots: host.Roots{Cgroup: dir}})}
		f, err := openFiles(m.opt.Roots)
		if err != nil {
			t.Fatal(err)
		}
		l := &loop{r: m.Recorder, files: f, slot: -1}
		defer l.close()
		c := m.cgroup("/box", truth{usage: 10 * mib, limit: 64 * mib})
		m.Watch(c)
		l.tick()

		e := m.live[c.Path]
		l.round++
		l.serve(e)
		m.cgroup("/box", truth{usage: 10 * mib, limit: 32 * mib})
		m.ReadNow(c)
		l.serve(e)
		l.tick()
		if h := m.history(c); *h.LimitBytes != 32*mib {
			t.Errorf("limit %d, want what it was when it was asked for", *h.LimitBytes)
		}
	})
}
