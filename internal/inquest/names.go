// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"strings"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// claims are the containers and pods that cgroups name. Whoever may make
// cgroups below his own, in a container or as a user, can name them like
// another's: of two that claim a name, the one that is farther out is it.
type claims map[string]claim

// claim is the outermost cgroup that claims a name.
type claim struct {
	depth  int
	cgroup string
}

// depth is within how many containers, guests, units and users' slices a cgroup
// lies: in each of them somebody may make cgroups at his will.
func depth(cgroup string) int {
	n := 0
	for at := cgpath.Parse(cgroup); at.Nested; at = cgpath.Parse(at.OuterCgroup) {
		n++
	}
	last := ""
	for _, name := range strings.Split(parent(cgroup), "/") {
		switch {
		case strings.HasSuffix(name, ".service"), strings.HasSuffix(name, ".scope"), name == "user.slice",
			strings.HasPrefix(name, "lxc.payload."), last == "lxc.payload", last == "lxc":
			n++
		}
		last = name
	}
	return n
}

// names are what a path claims, each with the cgroup that does.
func names(at cgpath.Path) [2]struct{ name, cgroup string } {
	var out [2]struct{ name, cgroup string }
	if at.ContainerID != "" {
		out[0].name, out[0].cgroup = at.ContainerID, at.Cgroup
	}
	if at.PodUID != "" && at.PodCgroup != "" {
		out[1].name, out[1].cgroup = "pod "+at.PodUID, at.PodCgroup
	}
	return out
}

func (c claims) seen(path string) {
	at := cgpath.Parse(path)
	for _, n := range names(at) {
		if n.name == "" || n.cgroup != path {
			continue
		}
		d := depth(path)
		// Of two just as far out, the one that was there first stays.
		if old, ok := c[n.name]; !ok || d < old.depth {
			c[n.name] = claim{d, path}
		}
	}
}

func (c claims) gone(path string) {
	for _, n := range names(cgpath.Parse(path)) {
		if c[n.name].cgroup == path {
			delete(c, n.name)
		}
	}
}

// resolve tells who lives at path, and the name that it claims and that is
// another's.
func (c claims) resolve(path string) (at cgpath.Path, forged string) {
	for {
		at = cgpath.Parse(path)
		around := ""
		for _, n := range names(at) {
			if real, ok := c[n.name]; ok && real.cgroup != n.cgroup && real.depth < depth(n.cgroup) {
				around, forged = parent(n.cgroup), n.name
			}
		}
		switch {
		case around != "":
			path = around
		case at.ContainerID == "" && at.Nested:
			path = at.OuterCgroup // a group made in a container, named like the kubelet's
		default:
			return at, forged
		}
	}
}

// owner names who lives at path: the container, else the systemd unit; the
// pod's cgroup; and the name that the path claims and that is another's.
func (q *Inquest) owner(path string) (c *death.Container, unit, pod, forged string) {
	at, forged := q.roster.claims.resolve(path)
	if at.ContainerID == "" {
		if t := q.tenants.at(path); t != nil {
			return &death.Container{ID: t.ID, Runtime: t.Runtime, Cgroup: t.Cgroup}, "", at.PodCgroup, forged
		}
		return nil, at.Unit, at.PodCgroup, forged
	}
	c = &death.Container{ID: at.ContainerID, Runtime: at.Runtime, Cgroup: at.Cgroup}
	if at.PodUID != "" {
		c.Pod = &death.Pod{UID: at.PodUID, QoSClass: at.QoS}
	}
	return c, "", at.PodCgroup, forged
}

// level is what the cgroup at path is; below a container, where its name is
// another's.
func (q *Inquest) level(path string) cgpath.Level {
	at, forged := q.roster.claims.resolve(path)
	switch {
	case forged == "" && at.ContainerID == "":
		return q.toldLevel(path, at.Level)
	case forged == "":
		return at.Level
	case at.ContainerID != "":
		return cgpath.Inside
	}
	return cgpath.Other
}

// toldLevel is what engines say that a cgroup is, whose path names no
// container; else what its names say.
func (q *Inquest) toldLevel(path string, named cgpath.Level) cgpath.Level {
	t := q.tenants.at(path)
	switch {
	case t == nil:
		return named
	case t.Cgroup == path:
		return cgpath.Container
	}
	return cgpath.Inside
}

// Container is the container whose own cgroup is at path; nil: it is none's.
func (q *Inquest) Container(path string) *death.Container {
	c, _, _, _ := q.owner(path)
	if c == nil || c.Cgroup != path {
		return nil
	}
	if t := q.tenants.of(c); t != nil && t.sandbox {
		return nil
	}
	return q.tenants.dress(c)
}

// Listed is Container of those that are shown while they live. Where Kubernetes
// tells of the pod, and not of that container, it is one that only holds the
// pod's namespaces, or so new that it is told of in a moment.
func (q *Inquest) Listed(path string) *death.Container {
	c := q.Container(path)
	if c != nil && c.Pod != nil && q.tenants.of(c) == nil && q.PodIsTold(c.Pod.UID) {
		return nil
	}
	return c
}

// PodIsTold tells whether Kubernetes tells of a pod and its containers now.
func (q *Inquest) PodIsTold(uid string) bool {
	p := q.pods.byUID[uid]
	return p != nil && p.goneAt.IsZero() && q.up[death.SourceKube]
}

// SandboxEnded is the id of a container that only held a pod's namespaces, as the
// name of its first process, which ended, says; "": it is none.
func (q *Inquest) SandboxEnded(b signal.Exit) string {
	if b.Task.Init == nil || !*b.Task.Init {
		return ""
	}
	c, _, _, _ := q.owner(q.roster.path(b.Task.Cgroup))
	if c == nil || !q.isSandbox(c, b.Task.Comm) {
		return ""
	}
	return c.ID
}

// IsContainer tells whether the cgroup at path is a container's own, also one
// that only holds a pod's namespaces.
func (q *Inquest) IsContainer(path string) bool {
	c, _, _, _ := q.owner(path)
	return c != nil && c.Cgroup == path
}

// Tenant is a container that an engine told of, and a name for it that no
// other has; nil: none did, it was removed, or it only holds a pod's namespaces.
func (q *Inquest) Tenant(namespace, id string) (*death.Container, string) {
	key := tenantKey(namespace, id)
	t := q.tenants.byKey[key]
	if t == nil || t.sandbox || !t.goneAt.IsZero() {
		return nil, key
	}
	c := &death.Container{ID: id, Runtime: t.Runtime, Cgroup: q.roster.claims[id].cgroup}
	if !t.may(c.Cgroup) {
		return nil, key
	}
	if c.Cgroup != "" {
		if at, _, _, _ := q.owner(c.Cgroup); at != nil && at.ID == id {
			c = at
		}
	}
	return t.dress(c), key
}

// ContainerKey is the name of c that Tenant gives it.
func (q *Inquest) ContainerKey(c *death.Container) string {
	if t := q.tenants.of(c); t != nil {
		return t.key
	}
	return c.ID
}
