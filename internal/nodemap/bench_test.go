// SPDX-License-Identifier: Apache-2.0

package nodemap

import (
	"testing"

	"github.com/coroner-dev/coroner/internal/host"
)

func BenchmarkRead(b *testing.B) {
	n := 0
	for b.Loop() {
		f, err := Read(host.Roots{})
		if err != nil {
			b.Fatal(err)
		}
		n = len(f.Groups) + len(f.Pods)
	}
	b.ReportMetric(float64(n), "groups")
}

func BenchmarkReadTasks(b *testing.B) {
	n := 0
	for b.Loop() {
		var f Facts
		f.ReadTasks(host.Roots{})
		n = len(f.Tasks)
	}
	b.ReportMetric(float64(n), "processes")
}
