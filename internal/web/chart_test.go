// SPDX-License-Identifier: Apache-2.0

package web

import (
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
)

func TestChart(t *testing.T) {
	limit := int64(100)
	samples := [][3]float64{{10, 50, 60}, {math.NaN(), 1, 1}, {15, math.Inf(1), 1}, {20, 100, 110}}
	want := &memoryChart{Points: "0.0,62.0 480.0,4.0", Limit: 4, HasLimit: true, Low: 50, High: 100, Seconds: 10}
	if diff := cmp.Diff(want, chart(&death.Memory{LimitBytes: &limit, Samples: samples})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	far := int64(1 << 40)
	if c := chart(&death.Memory{LimitBytes: &far, Samples: samples}); c == nil || c.HasLimit {
		t.Errorf("a limit far above: %+v", c)
	}
	for _, m := range []*death.Memory{nil, {}, {Samples: samples[:1]}, {Samples: [][3]float64{{5, 1, 1}, {5, 2, 2}}}} {
		if c := chart(m); c != nil {
			t.Errorf("%+v: %+v", m, c)
		}
	}
}

func TestPages_MemoryIsBetween(t *testing.T) {
	mib := float64(1 << 20)
	d := sampleDeaths()[0]
	d.ID = "fell"
	d.Memory = &death.Memory{Samples: [][3]float64{{100.2, 20 * mib, 0}, {118, 40 * mib, 0}, {136.9, 5 * mib, 0}}}
	s := newSite(t, nil)
	s.put(d)
	body := s.get("/deaths/fell").Body.String()
	text := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, "")
	for _, want := range []string{`aria-label="Working set within 37 seconds, between 5.0 MiB and 40 MiB"`, "Working set, between 5.0 MiB and 40 MiB in 37 s"} {
		if !strings.Contains(body, want) && !strings.Contains(text, want) {
			t.Errorf("no %q in the page", want)
		}
	}
}
