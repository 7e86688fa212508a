// SPDX-License-Identifier: Apache-2.0

package history

import (
	"context"
	"path/filepath"
	"testing"
)

// benchRows is how much history there is.
const benchRows = 100_000

// filled is a history of n deaths.
func filled(b *testing.B, n int) *Store {
	b.Helper()
	s := open(b, filepath.Join(b.TempDir(), "history.db"), Options{})
	all := samples(n)
	for len(all) > 0 {
		m := min(1000, len(all))
		put(b, s, all[:m]...)
		all = all[m:]
	}
	return s
}

func BenchmarkPut(b *testing.B) {
	for _, batch := range []int{1, 256} {
		b.Run(map[int]string{1: "one", 256: "batch of 256"}[batch], func(b *testing.B) {
			s := filled(b, benchRows)
			n := 1_000_000
			for b.Loop() {
				deaths := samples(0)
				for range batch {
					n++
					deaths = append(deaths, sample(n))
				}
				put(b, s, deaths...)
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "deaths/s")
		})
	}
}

func BenchmarkList(b *testing.B) {
	s := filled(b, benchRows)
	for _, c := range []struct {
		name string
		q    Query
	}{
		{"newest 100", Query{}},
		{"one pod", Query{Namespace: "shop", Pod: "web-3"}},
		{"container prefix", Query{Container: sample(3).Container.ID[:63]}},
		{"rare word", Query{Q: "1077", Limit: 20}},
		{"common words", Query{Q: "memory limit web", Limit: 20}},
		{"nothing", Query{Node: "none"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.List(context.Background(), c.q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	made := filled(b, benchRows)
	path := filepath.Join(b.TempDir(), "closed.db")
	if _, err := made.write.Exec(`VACUUM INTO ?`, path); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(context.Background(), path, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen_First is an agent's first start.
func BenchmarkOpen_First(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		s, err := Open(context.Background(), ":memory:", Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
