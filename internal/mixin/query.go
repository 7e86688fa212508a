// SPDX-License-Identifier: Apache-2.0

package mixin

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// died is who died of one of the causes in the last while, and how many seconds
// ago. Nothing counts here: the time of a death is there with the first scrape
// after it, also of a container that lived between two, and a new agent on the
// same node tells the same time. There are such series of the dead alone, so
// that it costs next to nothing.
func died(causes []death.Cause, window time.Duration) string {
	return fmt.Sprintf(`time() - %s{cause=~"%s"} < %s`, metrics.LastDeath, anyOf(causes), seconds(window))
}

// counted is how much a counter of deaths went up in a window, in whole
// numbers: by labels, absent where nobody died.
//
// A container that lived between two scrapes has a series that is born with
// its kills, where increase() sees nothing. So a series that was not there a
// window ago counts whole, if the death that it told of first is as young: not
// all that a new agent on the same node, or Prometheus after a gap, sees anew.
// Of any other what it rose by counts: increase() would tell of 1.07 kills.
func counted(counter, matchers string, window time.Duration) string {
	w := length(window)
	return fmt.Sprintf(`(
  (
    %[1]s%[3]s unless %[1]s%[3]s offset %[4]s
    and time() - min_over_time(%[2]s%[3]s[%[4]s]) < %[5]s
  )
  or
  %[1]s%[3]s - min_over_time(%[1]s%[3]s[%[4]s])
)`, counter, metrics.LastDeath, matchers, w, seconds(window))
}

// risen is counted for a counter of the agent's own, which may be born above 0
// too. A gap in the scrapes is no birth.
func risen(counter string, window time.Duration) string {
	w := length(window)
	return fmt.Sprintf(`(
  (%[1]s unless last_over_time(%[1]s[%[2]s] offset %[2]s))
  or
  %[1]s - min_over_time(%[1]s[%[2]s])
)`, counter, w)
}

// shown is counted for a panel whose windows follow one another: what rose
// between two of them must be in one. Grafana fills in the window.
func shown(counter, matchers, window, windowSeconds string) string {
	return fmt.Sprintf(`clamp_min(%[1]s%[3]s - %[1]s%[3]s offset %[4]s, 0) or (%[1]s%[3]s unless %[1]s%[3]s offset %[4]s and time() - min_over_time(%[2]s%[3]s[%[4]s]) < %[5]s)`,
		counter, metrics.LastDeath, matchers, window, windowSeconds)
}

// length is a duration as Prometheus writes it.
func length(d time.Duration) string { return model.Duration(d).String() }

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'g', -1, 64) }

// anyOf is a pattern for values that need no quoting.
func anyOf[T ~string](values []T) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = string(v)
	}
	return strings.Join(parts, "|")
}
