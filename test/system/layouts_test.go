// SPDX-License-Identifier: Apache-2.0

//go:build linux

package system

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

// TestAgent_Layouts is S27 with real processes: in each layout of cgroups that
// the table has - nested nodes, static pods, either driver, k3s, CRI-O, podman -
// a container's first process is OOM-killed, and the death names container, pod
// and class, and of a nested one the inner.
func TestAgent_Layouts(t *testing.T) {
	r := start(t, everything)
	tree := oomtest.New(t)
	type killed struct {
		l    cgpath.Layout
		mine func(string) string
		box  *oomtest.Cgroup
		pid  int
	}
	var told []killed
	for _, l := range cgpath.Layouts() {
		if l.Want.ContainerID == "" {
			continue
		}
		if testing.Short() && !l.Want.Nested && !l.Want.Static { // an emulated machine
			continue
		}
		mine := renamed(l.ID, l.Want)
		own := mine(l.Want.Cgroup)
		box := tree.Cgroup(strings.TrimPrefix(own, "/"), oomtest.Limit(32*mib))
		home := box
		if inside := strings.TrimPrefix(mine(l.Path), own); inside != "" {
			home = tree.Cgroup(strings.TrimPrefix(own+inside, "/"))
		}
		p, end := home.Run(oomtest.Load{NewPIDNS: true})
		if end.Signal != syscall.SIGKILL || home.OOMKills() != 1 {
			t.Fatalf("%s: the load ended by %v, the kernel counted %d; want a kill", l.ID, end.Signal, home.OOMKills())
		}
		told = append(told, killed{l, mine, box, p.PID})
	}
	for _, k := range told {
		t.Run(k.l.ID, func(t *testing.T) {
			want := k.l.Want
			r.on(t).one(k.box.Path, func(d *death.Death) error {
				c := d.Container
				if c == nil || len(d.Processes) != 1 {
					return fmt.Errorf("container %+v, processes %+v", c, d.Processes)
				}
				var pod death.Pod
				if c.Pod != nil {
					pod = *c.Pod
				}
				return all(
					is("id", c.ID, k.mine(want.ContainerID)), is("runtime", c.Runtime, want.Runtime), is("cgroup", c.Cgroup, k.box.Path),
					is("pod", pod.UID, k.mine(want.PodUID)), is("class", pod.QoSClass, want.QoS),
					is("cause", d.Cause, death.OOMContainerLimit), is("subject", d.Subject, death.SubjectContainer), is("pid", d.Processes[0].PID, k.pid),
				)
			})
		})
	}
}

// renamed gives the names of a layout's example to containers and pods of its
// own: an id means one container on a machine.
func renamed(layout string, p cgpath.Path) func(string) string {
	uid := oomtest.PodUID(layout)
	pairs := []string{p.ContainerID, oomtest.ContainerID(layout)}
	if p.OuterID != "" {
		pairs = append(pairs, p.OuterID, oomtest.ContainerID("outer "+layout))
	}
	switch len(p.PodUID) {
	case 36:
		for _, dash := range []string{"-", "_", `\x2d`} {
			pairs = append(pairs, strings.ReplaceAll(p.PodUID, "-", dash), strings.ReplaceAll(uid, "-", dash))
		}
	case 32, 64: // a static pod's hash, a podman pod's id
		pairs = append(pairs, p.PodUID, oomtest.ContainerID("pod " + layout)[:len(p.PodUID)])
	}
	return strings.NewReplacer(pairs...).Replace
}
