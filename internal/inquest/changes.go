// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest/verdict"
	"github.com/coroner-dev/coroner/internal/signal"
)

const (
	// changedFor is how long before a death a change is told of.
	changedFor = time.Hour
	// withIt is how much later than a kill an engine may say that it lowered
	// the limit: the kernel kills while the limit is written (cgroup v2).
	withIt = 2 * time.Second
	// settling is how long after it was made a cgroup may still have no limit.
	settling = 3 * time.Second
	// samePage is by how much the kernel rounds a limit.
	samePage = 1 << 16
	// maxChanges bounds the changes of one container, maxPast the containers
	// before it, that are remembered.
	maxChanges = 4
	maxPast    = 4
)

// limitChange is a change of a container's memory limit that an engine told.
type limitChange struct {
	from, to int64
	at       time.Time
	source   death.Source
}

// past is what is known of one container for the next of its names: it outlives
// the tombstone. limit is the last one, asMade the first.
type past struct {
	id, image, imageID string
	limit, asMade      *int64
	born               time.Time // or when it was first heard of
	source             death.Source
	before             *past // who bore these names before it
}

// namesakes are the containers that came last under each name.
type namesakes map[string]*past

// limited takes a limit that an engine told. Of several engines the one whose
// names count says it: what the others know can be older.
func (t *tenant) limited(s signal.Signal, limit int64) {
	rank := engineRank(s.Source)
	if rank < t.limitRank {
		return
	}
	if rank > t.limitRank {
		t.changes = nil
	} else if t.limit != nil && *t.limit != limit {
		if len(t.changes) == maxChanges {
			t.changes = slices.Delete(t.changes, 0, 1)
		}
		t.changes = append(t.changes, limitChange{*t.limit, limit, s.Time, s.Source})
	}
	t.limit, t.limitRank = &limit, rank
}

// remember keeps what is told of t for those that come after it, and finds who
// was there before it.
func (x namesakes) remember(t *tenant, s signal.Signal) {
	if t.sandbox {
		return
	}
	p := t.past
	if p == nil {
		p = &past{id: t.ID, born: s.Time, source: s.Source}
		t.past = p
	}
	if !t.started.IsZero() && t.started.Before(p.born) {
		p.born = t.started
	}
	p.image, p.imageID, p.limit = cmp.Or(t.Image, p.image), cmp.Or(t.ImageID, p.imageID), t.limit
	if p.asMade == nil {
		p.asMade = t.limit
	}
	key, owner := namesakeKey(&t.Container), ownerKey(&t.Container)
	if key == "" || key+owner == t.pastKey {
		return
	}
	t.pastKey = key + owner
	x.bear(key, p)
	if p.before == nil && owner != "" { // the first of its pod: what its owner had before counts
		x.bear(owner, p)
	}
}

// bear makes p the one that bears a name, and finds who bore it before.
func (x namesakes) bear(key string, p *past) {
	old := x[key]
	if old != nil && old != p && !old.born.Before(p.born) {
		return // it came later, and is told first
	}
	if old != nil && old != p {
		p.follow(old)
	}
	if len(x) >= maxSeries {
		x.shrink()
	}
	x[key] = p
}

// ownerKey is what stays of a pod's container when its owner has another pod
// made; "": nothing is known to.
func ownerKey(c *death.Container) string {
	p := c.Pod
	if p == nil || p.Owner == nil || p.Namespace == "" || c.Name == "" {
		return ""
	}
	return strings.Join([]string{"owner", p.Namespace, p.Owner.Kind, p.Owner.Name, c.Name}, "\x00")
}

// follow makes old the one before p.
func (p *past) follow(old *past) {
	p.before = old
	for range maxPast {
		if p = p.before; p == nil {
			return
		}
	}
	p.before = nil
}

// shrink forgets the older half.
func (x namesakes) shrink() {
	born := make([]time.Time, 0, len(x))
	for _, p := range x {
		born = append(born, p.born)
	}
	slices.SortFunc(born, time.Time.Compare)
	middle := born[len(born)/2]
	for k, p := range x {
		if !p.born.After(middle) {
			delete(x, k)
		}
	}
}

// namesakeKey is what stays of a container when it is deployed anew; "": nothing.
func namesakeKey(c *death.Container) string {
	owner := seriesOwner(c)
	if owner[0] == "id" {
		return ""
	}
	return strings.Join(owner, "\x00")
}

// deployed is the deploy that made t other than what was before it; nil: none
// is known. What was made anew since then, without a change, is of that deploy.
func (t *tenant) deployed() *verdict.Change {
	now := t.past
	if now == nil {
		return nil
	}
	first := now
	for p := now.before; p != nil; p = p.before {
		c := verdict.Change{Source: first.source, At: first.born, Replaced: p.id}
		c.ImageWas, c.ImageIs = otherImage(p, now)
		if p.limit != nil && now.asMade != nil && *p.limit != *now.asMade {
			c.LimitWas, c.LimitIs = p.limit, now.asMade
		}
		if c.ImageWas != "" || c.LimitWas != nil {
			return &c
		}
		first = p
	}
	return nil
}

// otherImage names the images of two containers where they differ: one image can
// have two names, and one name be of two images.
func otherImage(was, is *past) (string, string) {
	byID := was.imageID != "" && is.imageID != ""
	switch {
	case byID && was.imageID == is.imageID, was.image == "", is.image == "":
		return "", ""
	case was.image != is.image:
		return was.image, is.image
	case byID:
		return named(was.image, was.imageID), named(is.image, is.imageID)
	}
	return "", ""
}

// named is an image by its name and the begin of its id.
func named(image, id string) string {
	sum := strings.TrimPrefix(id, "sha256:")
	return strings.TrimSpace(image + " (" + sum[:min(len(sum), 12)] + ")")
}

// changes are those before the death of c that may bear on it, oldest first.
func (q *Inquest) changes(c *caseFile) []verdict.Change {
	if c.container == nil {
		return nil
	}
	died := c.at
	if !c.oomKilled {
		died = c.endTime()
	}
	out := q.tenantOf(c).changed()
	for _, l := range c.limitsRead(died) {
		if !slices.ContainsFunc(out, func(e verdict.Change) bool { return sameChange(&e, &l) }) {
			out = append(out, l)
		}
	}
	out = slices.DeleteFunc(out, func(c verdict.Change) bool {
		late := c.At.Sub(died)
		return late < -changedFor || late > withIt || late > 0 && !(c.Limit && c.Lowered())
	})
	for i := range out {
		out[i].Before = died.Sub(out[i].At)
		if since := out[i].Since; !since.IsZero() {
			out[i].Longest = died.Sub(since)
		}
	}
	slices.SortStableFunc(out, func(a, b verdict.Change) int { return a.At.Compare(b.At) })
	return out
}

// changed are the changes that engines told.
func (t *tenant) changed() []verdict.Change {
	if t == nil {
		return nil
	}
	var out []verdict.Change
	for i := range t.changes {
		l := &t.changes[i]
		out = append(out, verdict.Change{Source: l.source, At: l.at, Limit: true, LimitWas: &l.from, LimitIs: &l.to})
	}
	if d := t.deployed(); d != nil {
		out = append(out, *d)
	}
	return out
}

// sameChange tells whether e, which an engine told, is what the cgroup shows.
func sameChange(e, l *verdict.Change) bool {
	if !e.Limit || e.LimitIs == nil || l.LimitIs == nil || *e.LimitIs-*l.LimitIs >= samePage || *l.LimitIs-*e.LimitIs >= samePage {
		return false
	}
	return !e.At.Before(l.Since.Add(-withIt)) && !e.At.After(l.At.Add(withIt))
}

// limitsRead are the changes of the limit that the container's cgroup shows: what
// was read of it, and what the kernel gave with the kill.
func (c *caseFile) limitsRead(died time.Time) []verdict.Change {
	runs := slices.Clone(c.limits)
	if at := c.limitAtKill(); at != nil {
		// It goes where it belongs: what is read later may be another again.
		i, _ := slices.BinarySearchFunc(runs, died, func(r signal.LimitReading, t time.Time) int { return r.First.Compare(t) })
		if i > 0 && !equal(runs[i-1].Bytes, at) {
			runs = slices.Insert(runs, i, signal.LimitReading{First: died, Last: died, Bytes: at})
		}
	}
	var out []verdict.Change
	for i := 1; i < len(runs); i++ {
		was, is := runs[i-1], runs[i]
		young := was.Bytes == nil && i == 1 && was.Last.Sub(was.First) < settling
		if young || equal(was.Bytes, is.Bytes) || was.Last.After(died) {
			continue
		}
		out = append(out, verdict.Change{
			Source: death.SourceCgroup, Since: was.Last, At: is.First, Limit: true, LimitWas: was.Bytes, LimitIs: is.Bytes,
		})
	}
	return out
}

// limitAtKill is the limit of the container's own cgroup in the kernel's words
// about the OOM kill; nil: it gave none.
func (c *caseFile) limitAtKill() *int64 {
	if !c.oomKilled || c.container.Cgroup == "" {
		return nil
	}
	if c.oom.OOMMemcg == c.container.Cgroup && c.oom.LimitBytes != nil {
		return c.oom.LimitBytes
	}
	for _, l := range c.chain {
		if c.chainAtKill && l.Path == c.container.Cgroup {
			return l.LimitBytes
		}
	}
	return nil
}

// changeEvidence is what the death says of changes before it.
func changeEvidence(changes []verdict.Change) []death.Evidence {
	var out []death.Evidence
	for i := range changes {
		c := &changes[i]
		out = append(out, death.Evidence{Time: c.At.UTC(), Source: c.Source, Text: c.Text()})
	}
	return out
}
