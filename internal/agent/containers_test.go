// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestRoster_Lives: what docker ps would list is listed, and all where asked.
func TestRoster_Lives(t *testing.T) {
	st := newStage(t)
	st.say("docker", state("made", "created"), state("runs", "created"), state("runs", "running"),
		state("halts", "running"), state("halts", "paused"), state("ended", "running"), exited("ended", 1),
		state("found", "exited"), state("ranagain", "running"), exited("ranagain", 1), state("ranagain", "running"),
		state("removed", "running"), exited("removed", 0), signal.ContainerGone{ID: "removed"},
		state("lost", "running"), state("mute", ""), state("loops", "running"))
	end := st.now.Add(time.Millisecond)
	code := 1
	for _, b := range []signal.Body{signal.ContainerExit{ID: "loops", Code: &code}, state("loops", "restarting"), signal.ContainerExit{ID: "loops", Code: &code}} {
		c := &death.Container{ID: "loops"}
		if _, ok := b.(signal.ContainerExit); ok {
			c = nil
		}
		st.r.feed(signal.Signal{Time: end, Source: "docker", Body: b}, c, "loops")
	}
	// An answer about before its start comes late.
	st.r.feed(signal.Signal{Time: end.Add(-time.Hour), Source: "docker", Body: state("runs", "created")}, &death.Container{ID: "runs"}, "runs")
	cgroup := &death.Container{ID: "lost", Cgroup: "/x/lost"}
	st.r.feed(signal.Signal{Time: end, Source: "cgroup", Body: signal.CgroupSeen{}}, cgroup, "lost")
	st.r.feed(signal.Signal{Time: end, Source: "cgroup", Body: signal.CgroupSeen{}}, &death.Container{ID: "bare", Cgroup: "/x/bare"}, "bare")
	st.r.abandoned([]string{"lost"})
	live := map[string]string{"runs": "running", "halts": "paused", "ranagain": "running", "loops": "restarting", "lost": "", "bare": "", "mute": ""}
	all := maps.Clone(live)
	maps.Copy(all, map[string]string{"made": "created", "ended": "exited", "found": "exited", "removed": ""})
	for _, tt := range []struct {
		q    api.ContainersQuery
		want map[string]string
	}{
		{api.ContainersQuery{}, live},
		{api.ContainersQuery{All: true}, all},
		{api.ContainersQuery{Container: "loops"}, map[string]string{"loops": "restarting"}},
		{api.ContainersQuery{Container: "ended"}, map[string]string{}},
	} {
		got := map[string]string{}
		for _, c := range st.r.find(tt.q) {
			got[c.ID] = c.State
			if c.Removed != (c.ID == "removed") {
				t.Errorf("%s: removed %v", c.ID, c.Removed)
			}
		}
		if !maps.Equal(got, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.q, got, tt.want)
		}
	}
	if n := len(st.r.list()); n != len(all) {
		t.Errorf("metrics show %d containers, want all %d", n, len(all))
	}
}
