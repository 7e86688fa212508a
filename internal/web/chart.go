// SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"
	"math"
	"strings"

	"github.com/coroner-dev/coroner/internal/death"
)

// The size of a chart of memory, in the units of its picture.
const (
	chartWidth  = 480
	chartHeight = 120
)

// memoryChart is a container's memory before its death as a picture.
type memoryChart struct {
	Points    string  // of the working set, for a polyline
	Limit     float64 // height of the limit's line
	HasLimit  bool
	Low, High int64 // bytes
	Seconds   int64 // that it spans
}

// chart draws the samples; nil: there are too few.
func chart(m *death.Memory) *memoryChart {
	if m == nil {
		return nil
	}
	curve := m.Curve(math.Inf(-1), math.Inf(1))
	if curve == nil {
		return nil
	}
	c := &memoryChart{Low: curve.Low, High: curve.High, Seconds: curve.Seconds()}
	high := float64(curve.High)
	top := high
	if m.LimitBytes != nil && *m.LimitBytes > 0 && float64(*m.LimitBytes) < 8*high {
		top, c.HasLimit = max(high, float64(*m.LimitBytes)), true
	}
	height := func(n float64) float64 { return chartHeight - n/top*(chartHeight-4) }
	if c.HasLimit {
		c.Limit = height(float64(*m.LimitBytes))
	}
	var b strings.Builder
	for _, s := range curve.Points {
		fmt.Fprintf(&b, "%.1f,%.1f ", curve.X(s[0])*chartWidth, height(s[1]))
	}
	c.Points = strings.TrimSpace(b.String())
	return c
}
