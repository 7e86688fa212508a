// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// sparkWidth is how many characters a line of memory takes.
const sparkWidth = 48

// memoryRows tell and draw a container's memory before its death.
func memoryRows(d *death.Death, row func(string, string, ...any)) {
	m := d.Memory
	if m == nil {
		return
	}
	if line := memoryLine(m.Samples, d.Time); line != "" {
		row("memory", "%s", line)
	}
	var parts []string
	for _, f := range []struct {
		name string
		n    *int64
	}{{"limit", m.LimitBytes}, {"request", m.RequestBytes}, {"peak", m.PeakBytes}} {
		if f.n != nil {
			parts = append(parts, f.name+" "+death.FormatBytes(*f.n))
		}
	}
	if m.Pattern != "" {
		parts = append(parts, "pattern: "+death.Printable(m.Pattern))
	}
	if len(parts) > 0 && (len(m.Samples) > 0 || m.PeakBytes != nil) {
		row("", "%s", strings.Join(parts, ", "))
	}
}

// memoryLine draws the working set of the last two minutes before then, each
// character the highest of its time; empty: there is nothing to draw.
func memoryLine(samples [][3]float64, then time.Time) string {
	const span = 2 * time.Minute
	end := float64(then.UnixMilli()) / 1000
	begin := end - span.Seconds()
	heights := make([]float64, sparkWidth)
	for i := range heights {
		heights[i] = math.NaN()
	}
	low, high, first := math.Inf(1), 0.0, end
	for _, s := range samples {
		if s[0] < begin || s[0] > end+1 || !(s[1] >= 0) || math.IsInf(s[1], 0) {
			continue
		}
		i := min(max(int((s[0]-begin)/span.Seconds()*sparkWidth), 0), sparkWidth-1)
		if !(heights[i] >= s[1]) {
			heights[i] = s[1]
		}
		low, high, first = min(low, s[1]), max(high, s[1]), min(first, s[0])
	}
	if high == 0 || end-first < 1 {
		return ""
	}
	var b strings.Builder
	for _, h := range heights {
		if math.IsNaN(h) {
			b.WriteByte(' ')
			continue
		}
		b.WriteRune([]rune("▁▂▃▄▅▆▇█")[min(int(h/high*8), 7)])
	}
	return fmt.Sprintf("%s  %s to %s in %.0f s", strings.TrimLeft(b.String(), " "), death.FormatBytes(int64(low)), death.FormatBytes(int64(high)), end-first)
}
