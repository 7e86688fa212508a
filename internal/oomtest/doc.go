// SPDX-License-Identifier: Apache-2.0

// Package oomtest makes real OOM kills for tests, in cgroups of its own below
// coroner-test-PID, and keeps the truth about them: which processes it started,
// where, and which of them died. It knows nothing of coroner's own code, so
// that it can be held against it. It works on cgroup v1 and v2, as root.
//
// A test binary that uses it must hand its TestMain to Main, for the loads are
// the test binary itself, started again. A load waits until it is in its
// cgroup and until Process.Go releases it:
//
//	tree := oomtest.New(t)
//	box := tree.Cgroup("box", oomtest.Limit(32<<20))
//	p := box.Start(oomtest.Load{Comm: []byte("leaky")})
//	p.Go()
//	end := p.Wait()
package oomtest
