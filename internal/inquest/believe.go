// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"maps"
	"slices"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Believes tells whether s is the word of somebody who may say so. What the
// engine of a user says counts for containers alone that no other engine tells
// of, and whose cgroups lie in that user's slice.
func (q *Inquest) Believes(s signal.Signal) bool {
	if s.User == "" {
		return true
	}
	namespace, id := subject(s.Body)
	if t := q.tenants.byKey[tenantKey(namespace, id)]; t != nil && t.user != s.User {
		return false
	}
	c, claimed := q.roster.claims[id]
	return !claimed || usersOwn(s.User, c.cgroup)
}

// subject is the container that an engine speaks of.
func subject(b signal.Body) (namespace, id string) {
	switch b := b.(type) {
	case signal.ContainerSeen:
		return b.Namespace, b.Container.ID
	case signal.ContainerGone:
		return b.Namespace, b.ID
	case signal.ContainerExit:
		return b.Namespace, b.ID
	case signal.ContainerStop:
		return b.Namespace, b.ID
	case signal.ContainerOOM:
		return b.Namespace, b.ID
	}
	return "", ""
}

// usersOwn tells whether a cgroup lies in a user's slice.
func usersOwn(user, cgroup string) bool {
	return cgpath.Within("/user.slice/user-"+user+".slice", cgroup)
}

// ofUser leaves of a word of a user's engine what may be believed: no cgroup of
// others, and no file that the agent would read with rights that the user lacks.
func ofUser(user string, b signal.ContainerSeen) signal.ContainerSeen {
	if !usersOwn(user, b.Container.Cgroup) {
		b.Container.Cgroup = ""
	}
	b.LogPath = ""
	return b
}

// may tells whether t can be who lives at a cgroup.
func (t *tenant) may(cgroup string) bool {
	return t.user == "" || cgroup == "" || usersOwn(t.user, cgroup)
}

// reset makes t one that nothing was told of: a user's engine had claimed its id.
func (x *tenants) reset(t *tenant) {
	if x.byCgroup[t.Cgroup] == t {
		delete(x.byCgroup, t.Cgroup)
	}
	*t = tenant{key: t.key, Container: death.Container{ID: t.ID}, goneAt: t.goneAt}
}

// abandonEach is how often it is looked for containers that nobody speaks for.
const abandonEach = time.Minute

// abandon takes those for gone of which no engine tells that has not been away
// for long, or has said itself that they went, and whose cgroup does not live:
// the one whose names count may never come back to say so.
func (q *Inquest) abandon() {
	if q.now.Sub(q.tenants.looked) < abandonEach || !q.up[death.SourceCgroup] {
		return
	}
	q.tenants.looked = q.now
	var away engineSet
	for src, since := range q.tenants.down {
		if q.now.Sub(since) > q.opts.TombstoneTTL {
			away |= setOf(src)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(q.tenants.byKey)) { // the same signals give the same graves
		t := q.tenants.byKey[key]
		if !t.goneAt.IsZero() || t.has&^away != 0 || q.livesIn(t) {
			continue
		}
		q.tenants.bury(t, q.now)
		q.abandoned = append(q.abandoned, key)
	}
}

// livesIn tells whether the cgroup of a container is there.
func (q *Inquest) livesIn(t *tenant) bool {
	for _, path := range []string{t.Cgroup, q.roster.claims[t.ID].cgroup} {
		if e := q.roster.byPath[path]; e != nil && e.goneAt.IsZero() {
			return true
		}
	}
	return false
}

// TakeAbandoned returns the containers, by the names that Tenant gives them,
// that were taken for gone without an engine's word, since it was last called.
func (q *Inquest) TakeAbandoned() []string {
	keys := q.abandoned
	q.abandoned = nil
	return keys
}

// engineSet are engines.
type engineSet uint8

func setOf(src death.Source) engineSet { return 1 << engineRank(src) }

// heardOf notes whether an engine's source is up.
func (x *tenants) heardOf(src death.Source, up bool, now time.Time) {
	if _, down := x.down[src]; up {
		delete(x.down, src)
	} else if !down {
		x.down[src] = now
	}
}
