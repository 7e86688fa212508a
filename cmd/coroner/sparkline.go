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
	if line := memoryLine(m, d.Time); line != "" {
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
func memoryLine(m *death.Memory, then time.Time) string {
	const span = 2 * time.Minute
	end := float64(then.UnixMilli()) / 1000
	begin := end - span.Seconds()
	c := m.Curve(begin, end+1)
	if c == nil {
		return ""
	}
	heights := make([]float64, sparkWidth)
	for i := range heights {
		heights[i] = math.NaN()
	}
	for _, s := range c.Points {
		i := min(max(int((s[0]-begin)/span.Seconds()*sparkWidth), 0), sparkWidth-1)
		if !(heights[i] >= s[1]) {
			heights[i] = s[1]
		}
	}
	var b strings.Builder
	for _, h := range heights {
		if math.IsNaN(h) {
			b.WriteByte(' ')
			continue
		}
		b.WriteRune([]rune("▁▂▃▄▅▆▇█")[min(int(h/float64(c.High)*8), 7)])
	}
	// Low and high are no beginning and end: memory falls, too.
	return fmt.Sprintf("%s  between %s and %s in %d s", strings.TrimLeft(b.String(), " "), death.FormatBytes(c.Low), death.FormatBytes(c.High), c.Seconds())
}
