// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// Change is one thing that became another shortly before a death.
type Change struct {
	// Source told of it. At is when it happened, or Since and At are between
	// which times.
	Source    death.Source
	Since, At time.Time
	// Before is how long before the death At is, Longest the same of Since; 0:
	// it is not between two times.
	Before, Longest time.Duration

	// Limit: the container's memory limit changed from LimitWas to LimitIs.
	// Else another container took over its names, with what differs of these.
	// nil: none, of a change of the limit; of a deploy, no difference.
	Limit             bool
	LimitWas, LimitIs *int64
	ImageWas, ImageIs string
	// Replaced is the id of the container before.
	Replaced string
}

// Text is the change in words.
func (c *Change) Text() string {
	if c.Limit {
		return c.limitText() + ", " + c.ago()
	}
	var what []string
	if c.ImageWas != "" {
		what = append(what, "image "+death.Printable(c.ImageWas)+" before, "+death.Printable(c.ImageIs)+" since")
	}
	if c.LimitWas != nil && c.LimitIs != nil {
		what = append(what, "memory limit "+death.FormatBytes(*c.LimitWas)+" before, "+death.FormatBytes(*c.LimitIs)+" since")
	}
	return "deployed " + c.ago() + ", in place of container " + death.Printable(death.ShortID(c.Replaced)) + ": " + strings.Join(what, "; ")
}

func (c *Change) limitText() string {
	switch {
	case c.LimitWas == nil && c.LimitIs != nil:
		return "a memory limit of " + death.FormatBytes(*c.LimitIs) + " was set where there was none"
	case c.LimitIs == nil && c.LimitWas != nil:
		return "the memory limit of " + death.FormatBytes(*c.LimitWas) + " was taken away"
	}
	return "the memory limit was changed from " + death.FormatBytes(*c.LimitWas) + " to " + death.FormatBytes(*c.LimitIs)
}

// ago is how long before the death it was.
func (c *Change) ago() string {
	switch {
	case c.Longest > 0 && c.Before <= 0:
		return "at most " + span(c.Longest) + " before"
	case c.Longest > 0:
		return "between " + span(c.Longest) + " and " + span(c.Before) + " before"
	case c.Before <= 0:
		return "at the same time"
	}
	return span(c.Before) + " before"
}

// span is a time in as many digits as people care for.
func span(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "less than 1 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f min", d.Minutes())
}

// Lowered tells whether less memory is allowed since.
func (c *Change) Lowered() bool {
	return c.LimitIs != nil && (c.LimitWas == nil && c.Limit || c.LimitWas != nil && *c.LimitIs < *c.LimitWas)
}

// adviseChange is what to do first about a death by a container's limit that
// was lowered before, or of a container that was just deployed.
func adviseChange(cause death.Cause, f *Facts) []string {
	var c *Change
	for _, fits := range []func(*Change) bool{
		func(c *Change) bool { return !c.Limit && c.ImageWas != "" && failure(cause) },
		func(c *Change) bool { return cause == death.OOMContainerLimit && c.Lowered() },
	} {
		for i := range f.Changes { // the last one
			if fits(&f.Changes[i]) {
				c = &f.Changes[i]
			}
		}
	}
	switch {
	case c == nil:
		return nil
	case cause == death.OOMContainerLimit && c.Lowered() && c.LimitWas != nil:
		return []string{fmt.Sprintf("The limit was %s until %s: if it did its work with that, set it back.", death.FormatBytes(*c.LimitWas), c.ago())}
	case cause == death.OOMContainerLimit && c.Lowered():
		return []string{"It had no limit of its own until " + c.ago() + ": if the new one was not meant for it, take it away."}
	}
	return []string{fmt.Sprintf("It runs another image since %s: if the one before did not die so, look at what differs, or go back to %s.", c.ago(), death.Printable(c.ImageWas))}
}

// failure tells whether a cause may lie in the program that ran.
func failure(c death.Cause) bool {
	switch c {
	case death.Completed, death.Stopped, death.StopTimeout, death.Killed, death.OOMNode, death.OOMUserspace, death.Unknown:
		return false
	}
	return true
}
