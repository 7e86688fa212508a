// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// TestNames_Forged: a cgroup that is named like somebody else's container is
// taken for what it lies in.
func TestNames_Forged(t *testing.T) {
	outer := "/docker/" + rightID
	const user = "/user.slice/user-1000.slice/user@1000.service"
	for _, tc := range []struct {
		name, victim string
		known        []string // besides the victim's
		container    string
		unit         string
		believed     bool
	}{
		{"like a container that lives elsewhere", outer + "/docker/" + leftID, []string{leftPath}, rightID, "", false},
		{"like a container and its pod", outer + leftPath, []string{podPath, leftPath}, rightID, "", false},
		{"like another's pod", outer + podPath + "/cri-containerd-" + strings.Repeat("5", 64) + ".scope", []string{podPath, leftPath}, rightID, "", false},
		{"by a user", user + "/docker/" + leftID, []string{leftPath}, "", "user@1000.service", false},
		{"by a service", "/system.slice/evil.service/docker/" + leftID, []string{"/docker/" + leftID}, "", "evil.service", false},
		{"by a service, of a scope", "/system.slice/evil.service/docker/" + leftID, []string{"/system.slice/docker-" + leftID + ".scope"}, "", "evil.service", false},
		{"by a guest", "/lxc.payload.evil/docker/" + leftID, []string{"/docker/" + leftID}, "", "", false},
		{"by an older guest", "/lxc/evil/docker/" + leftID, []string{leftPath}, "", "", false},
		{"a runtime in a service", "/system.slice/engine.service/docker/" + leftID, nil, leftID, "", true},
		{"a node in a container", outer + "/kubelet" + leftPath, nil, leftID, "", true},
		{"rootless", user + "/user.slice/libpod-" + leftID + ".scope", nil, leftID, "", true},
		{"one node in another, with the same names at both", outer + "/docker/" + leftID, []string{outer + "/docker/" + leftID}, leftID, "", true},
	} {
		for _, order := range []string{"the true one first", "the false one first"} {
			t.Run(tc.name+", "+order, func(t *testing.T) {
				sc := &scene{}
				q := New(Options{})
				paths := append([]string{outer, tc.victim}, tc.known...)
				if order == "the true one first" {
					paths = append(tc.known, outer, tc.victim)
				}
				var sigs []signal.Signal
				for _, path := range paths {
					sigs = append(sigs, sc.sig("cgroup", signal.CgroupSeen{Level: level(path, 40*mib, -1)}))
				}
				sigs = append(sigs, sources(sc, "cgroup", "tracepoint")...)
				v := task(100, "leak", tc.victim, false)
				for _, b := range oomKill(v, v, level(tc.victim, 40*mib, 40*mib)) {
					sigs = append(sigs, sc.sig("tracepoint", b))
				}
				d := only(t, play(t, q, sigs...))
				got := ""
				if d.Container != nil {
					got = d.Container.ID
				}
				if got != tc.container || d.Unit != tc.unit {
					t.Errorf("container %q, unit %q; want %q, %q", got, d.Unit, tc.container, tc.unit)
				}
				if said := strings.Contains(sketch([]death.Death{d}), "not believed"); said == tc.believed {
					t.Errorf("the evidence:\n%s", sketch([]death.Death{d}))
				}
				if !tc.believed && d.Cause == death.OOMContainerLimit {
					t.Errorf("the limit of the false cgroup is told as the container's own:\n%s", sketch([]death.Death{d}))
				}
				if c := q.Container(tc.victim); (c != nil) != tc.believed {
					t.Errorf("lives there: %v", c)
				}
			})
		}
	}
}

// TestNames_Forgotten: a name is free again when its owner is forgotten.
func TestNames_Forgotten(t *testing.T) {
	sc := &scene{}
	q := New(Options{})
	nested := "/docker/" + rightID + "/docker/" + leftID
	for _, b := range []signal.Body{
		signal.CgroupSeen{Level: level(leftPath, 0, -1)}, signal.CgroupSeen{Level: level(nested, 0, -1)},
		signal.CgroupGone{Cgroup: signal.Cgroup{Path: leftPath}},
	} {
		q.Feed(sc.sig("cgroup", b))
	}
	if q.Container(nested) != nil {
		t.Error("the name of one just gone is believed of another")
	}
	q.Tick(q.now.Add(2 * q.opts.TombstoneTTL))
	if q.Container(nested) == nil {
		t.Error("the name of one long gone is not believed of another")
	}
}
