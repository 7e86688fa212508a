// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// maxFolded bounds the deaths that are looked at to fill a listing of stories.
const maxFolded = 2000

// stories are who is asked, and what died of one cause again and again is told
// once, by its newest death.
type stories struct{ asked }

func (s stories) newest(ctx context.Context, q api.Query, n int) ([]death.Death, error) {
	for ask := n; ; ask = min(4*ask, maxFolded) {
		deaths, err := s.asked.newest(ctx, q, ask)
		if err != nil {
			return nil, err
		}
		folded := fold(deaths)
		if n == 0 {
			return folded, nil
		}
		if len(folded) >= n || len(deaths) < ask || ask >= maxFolded {
			return folded[:min(n, len(folded))], nil
		}
	}
}

// storyLine is a death as a row of a listing, with the story whose newest it is.
func storyLine(d *death.Death) []string {
	row := line(d)
	if r := d.Repeat; r != nil {
		row[len(row)-1] = fmt.Sprintf("%d times since %s%s", r.Count, r.First.UTC().Format(time.DateTime), rateText(r))
	}
	return row
}

// fold keeps of each story the newest death. Deaths are the newest first.
func fold(deaths []death.Death) []death.Death {
	since := map[string]time.Time{} // of whom, when the story began that was told last
	return slices.DeleteFunc(slices.Clone(deaths), func(d death.Death) bool {
		whose := teller(&d)
		if first, told := since[whose]; told && !d.Time.Before(first) {
			return true
		}
		delete(since, whose)
		if d.Repeat != nil {
			since[whose] = d.Repeat.First
		}
		return false
	})
}

// teller says of whom and of which cause a death tells: what stays when a
// container is made anew.
func teller(d *death.Death) string {
	whose := []string{d.Node, string(d.Cause), place(d)}
	if c := d.Container; c != nil {
		whose = append(whose, c.Runtime)
		switch {
		case c.Pod == nil && c.Workload != nil && c.Workload.Kind != death.WorkloadCompose:
			whose[2] = c.Workload.Title() // each task has a name of its own
		case c.Name != "" && c.ID != "":
			// Docker Compose puts the id before the name while it makes the next one.
			whose[2] = strings.Replace(whose[2], death.ShortID(c.ID)+"_", "", 1)
		}
	}
	return strings.Join(whose, "\x00")
}
