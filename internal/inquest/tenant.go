// SPDX-License-Identifier: Apache-2.0

package inquest

import (
	"cmp"
	"maps"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxTenants bounds the containers known by engines, with their tombstones.
const maxTenants = 16384

// maxEnds and maxAsks bound what is remembered of one container.
const (
	maxEnds = 8
	maxAsks = 8
)

// tenant is one container as engines know it. It outlives its removal for a
// while: evidence comes after a container has gone.
type tenant struct {
	death.Container
	key       string
	user      string    // whose engine alone tells of it; empty: the machine's does
	has       engineSet // who has it
	rank      int       // of the engine whose names these are
	limitRank int       // and whose limit
	sandbox   bool
	pid       int // of the run that began at started
	program   string
	started   time.Time
	limit     *int64
	memswap   *int64 // of memory and swap together; -1: none
	request   *int64 // of memory, that Kubernetes promised it
	changes   []limitChange
	namings   []naming // oldest first
	runs      []oneRun // in the order in which they were told
	past      *past
	pastKey   string
	logPath   string
	logFrom   death.Source // who told of logPath
	shmSize   *int64
	stopWith  int    // the signal that a stop sends first; 0: not known
	grace     *int64 // seconds from there to SIGKILL
	restarts  string // Kubernetes' policy
	liveness  *signal.Probe
	startup   *signal.Probe
	asks      []ask
	ends      []end
	lastEnd   time.Time // of its last run
	lastOOM   lastKill
	oomWord   *signal.Signal // an engine's, of nothing that was known by then
	goneAt    time.Time      // zero while it is there
}

// ask is one signal that an engine was asked to send, or that it says it was
// asked to stop or restart the container.
type ask struct {
	signal.ContainerStop
	source death.Source
	at     time.Time
	done   time.Time // of a restart when the stop was, else at
}

// tenants are the containers that engines tell of.
type tenants struct {
	ttl      time.Duration
	byKey    map[string]*tenant
	byCgroup map[string]*tenant // where the path does not name the container
	graves   []*tenant          // gone, oldest first
	names    namesakes
	full     uint64                     // what was told of containers that there was no room for
	down     map[death.Source]time.Time // engines that are away, and since when
	lastEnds map[string]time.Time       // in runs of the agent before this one
	looked   time.Time                  // for those that nobody speaks for
}

func newTenants(ttl time.Duration) tenants {
	return tenants{ttl: ttl, byKey: map[string]*tenant{}, byCgroup: map[string]*tenant{}, names: namesakes{}, down: map[death.Source]time.Time{}, lastEnds: map[string]time.Time{}}
}

// engineRank says whose names count: the nearer to people, the higher.
func engineRank(s death.Source) int {
	switch s {
	case death.SourceKube:
		return 4
	case death.SourceCRI:
		return 3
	case death.SourceDocker:
		return 2
	}
	return 1
}

// tenantKey tells containers apart: an id of 64 digits is one everywhere, any
// other only within its namespace of containerd.
func tenantKey(namespace, id string) string {
	if namespace == "" || len(id) == 64 || id == "" {
		return id
	}
	return namespace + "/" + id
}

// tenant finds or makes the tenant with an id, of which the engine of a user
// speaks, or one of the machine's; nil where there is no room.
func (x *tenants) tenant(user, namespace, id string) *tenant {
	key := tenantKey(namespace, id)
	if t := x.byKey[key]; t != nil || id == "" {
		if t != nil && user == "" && t.user != "" {
			x.reset(t)
		}
		return t
	}
	if len(x.byKey) >= maxTenants {
		x.full++
		return nil
	}
	t := &tenant{key: key, user: user, lastEnd: x.lastEnds[key]}
	t.ID, t.Namespace = id, namespace
	x.byKey[key] = t
	return t
}

// of is the tenant that a cgroup's names, or an engine's word on it, mean.
func (x *tenants) of(c *death.Container) *tenant {
	if c == nil {
		return nil
	}
	if t := x.byKey[c.ID]; t != nil && t.may(c.Cgroup) {
		return t
	}
	return x.at(c.Cgroup)
}

// see lays what an engine says over what was known.
func (x *tenants) see(s signal.Signal, b signal.ContainerSeen) *tenant {
	src := s.Source
	t := x.tenant(s.User, b.Namespace, b.Container.ID)
	if t == nil {
		return nil
	}
	if s.User != "" {
		b = ofUser(s.User, b)
	}
	t.has |= setOf(src)
	t.goneAt = time.Time{}
	t.Namespace = cmp.Or(b.Namespace, t.Namespace)
	greater := engineRank(src) > t.rank
	t.name(engineRank(src), &b.Container)
	t.renamed(s.Time, greater)
	t.ran(b)
	x.home(t, b.Container.Cgroup)
	t.sandbox = t.sandbox || b.Sandbox
	if b.PID != 0 {
		t.pid = b.PID
	}
	if b.Program != "" {
		t.program = b.Program
	}
	if !b.Started.IsZero() {
		t.started = b.Started
	}
	if b.LimitBytes != nil {
		t.limited(s, *b.LimitBytes)
	}
	if b.MemorySwapBytes != nil {
		t.memswap = b.MemorySwapBytes
	}
	if b.LogPath != "" {
		t.logPath, t.logFrom = b.LogPath, src
	}
	if b.RequestBytes != nil {
		t.request = b.RequestBytes
	}
	if b.ShmSizeBytes != nil {
		t.shmSize = b.ShmSizeBytes
	}
	if b.StopSignal != 0 {
		t.stopWith = b.StopSignal
	}
	if b.StopTimeout != nil {
		t.grace = b.StopTimeout
	}
	t.lookedAfter(b)
	x.names.remember(t, s)
	return t
}

// home takes over where a container lives.
func (x *tenants) home(t *tenant, at string) {
	if at == "" || at == "/" || at == t.Cgroup {
		return
	}
	if x.byCgroup[t.Cgroup] == t {
		delete(x.byCgroup, t.Cgroup)
	}
	t.Cgroup = at
	if cgpath.Parse(at).ContainerID == "" {
		x.byCgroup[at] = t
	}
}

// name takes over names. What a lesser engine says fills gaps alone.
func (t *tenant) name(rank int, c *death.Container) {
	wins := rank >= t.rank
	set := func(dst *string, v string) {
		if v != "" && (wins || *dst == "") {
			*dst = v
		}
	}
	set(&t.Name, c.Name)
	set(&t.Runtime, c.Runtime)
	set(&t.Image, c.Image)
	set(&t.ImageID, c.ImageID)
	t.Kind = cmp.Or(t.Kind, c.Kind) // Kubernetes alone tells it
	if c.RestartCount != nil && (wins || t.RestartCount == nil) {
		t.RestartCount = c.RestartCount
	}
	if len(c.Labels) > 0 && (wins || len(t.Labels) == 0) {
		t.Labels = c.Labels
	}
	if c.Pod != nil {
		t.Pod = joinPods(t.Pod, c.Pod, wins)
	}
	if w := cmp.Or(c.Workload, death.WorkloadOf(c.Name, c.Labels)); w != nil && (wins || t.Workload == nil) {
		t.Workload = w
	}
	t.rank = max(t.rank, rank)
}

// joinPods lays b over a, or under it.
func joinPods(a, b *death.Pod, over bool) *death.Pod {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	if over {
		a, b = b, a
	}
	p := *a
	for _, f := range []struct{ dst, src *string }{
		{&p.Namespace, &b.Namespace}, {&p.Name, &b.Name}, {&p.UID, &b.UID}, {&p.QoSClass, &b.QoSClass},
	} {
		if *f.dst == "" {
			*f.dst = *f.src
		}
	}
	if p.Owner == nil {
		p.Owner = b.Owner
	}
	return &p
}

// gone keeps a removed container as a tombstone. Docker removes a container
// from containerd whenever it stops: that is no removal of Docker's.
func (x *tenants) gone(src death.Source, b signal.ContainerGone, now time.Time) {
	t := x.byKey[tenantKey(b.Namespace, b.ID)]
	if t == nil {
		return
	}
	if t.has &^= setOf(src); t.goneAt.IsZero() && engineRank(src) >= t.rank {
		x.bury(t, now)
	}
}

func (x *tenants) bury(t *tenant, now time.Time) {
	t.goneAt = now
	x.graves = append(x.graves, t)
}

func (x *tenants) expire(now time.Time) {
	n := 0
	for n < len(x.graves) && (now.Sub(x.graves[n].goneAt) > x.ttl || len(x.byKey) > maxTenants/2) {
		t := x.graves[n]
		n++
		if t.goneAt.IsZero() {
			continue // it came back
		}
		delete(x.byKey, t.key)
		if x.byCgroup[t.Cgroup] == t {
			delete(x.byCgroup, t.Cgroup)
		}
	}
	if n > 0 {
		x.graves = append(x.graves[:0:0], x.graves[n:]...)
	}
}

// at finds the container whose own cgroup is path or around it, by what
// engines say, for paths that name no container.
func (x *tenants) at(path string) *tenant {
	if len(x.byCgroup) == 0 {
		return nil
	}
	for p := path; p != "" && p != "/"; p = parent(p) {
		if t := x.byCgroup[p]; t != nil {
			return t
		}
	}
	return nil
}

// dress names c as the engines do. c itself is not changed.
func (x *tenants) dress(c *death.Container) *death.Container {
	t := x.of(c)
	if t == nil {
		return c
	}
	return t.dress(c)
}

func (t *tenant) dress(c *death.Container) *death.Container {
	d := *c
	d.Kind = cmp.Or(d.Kind, t.Kind)
	for _, f := range []struct {
		dst *string
		src string
	}{{&d.Name, t.Name}, {&d.Image, t.Image}, {&d.ImageID, t.ImageID}, {&d.Cgroup, t.Cgroup}} {
		if *f.dst == "" {
			*f.dst = f.src
		}
	}
	if t.Runtime != "" {
		d.Runtime = t.Runtime
	}
	if t.rank <= engineRank(death.SourceContainerd) {
		d.Namespace = cmp.Or(d.Namespace, t.Namespace)
	}
	if t.RestartCount != nil {
		d.RestartCount = t.RestartCount
	}
	if t.Workload != nil {
		d.Workload = t.Workload
	}
	if len(t.Labels) > 0 {
		d.Labels = maps.Clone(t.Labels)
	}
	d.Pod = joinPods(d.Pod, t.Pod, false)
	return &d
}

// containerSeen takes what an engine says of a container.
func (q *Inquest) containerSeen(s signal.Signal, b signal.ContainerSeen) {
	t := q.tenants.see(s, b)
	if t == nil {
		return
	}
	defer q.releaseEnds(t)
	for _, c := range q.cases {
		if q.tenantOf(c) == t || c.stray != nil && q.tenants.of(c.stray.of) == t || t.killed(c) {
			q.relearn(c)
			q.touchNames(c)
			continue
		}
		if c.container == nil && c.taskMemcg != "" && t.Cgroup != "" && cgpath.Within(t.Cgroup, c.taskMemcg) {
			q.moveIn(c)
		}
	}
	q.releaseFirst(t)
}

// killed tells whether who killed c lives in t's cgroup.
func (t *tenant) killed(c *caseFile) bool {
	return c.killer != nil && t.Cgroup != "" && cgpath.Within(t.Cgroup, c.killer.Cgroup)
}

// moveIn places c anew: an engine says now whose cgroup it is.
func (q *Inquest) moveIn(c *caseFile) {
	if c.container, c.unit, c.podCgroup, _ = q.owner(c.taskMemcg); c.container == nil {
		return
	}
	c.lateHome = true
	q.housed(c)
	q.touchNames(c)
}

// touchNames marks c for the next Take. A name alone keeps no case open.
func (q *Inquest) touchNames(c *caseFile) {
	was := c.touched
	q.touch(c)
	c.touched = was
}

// tenantOf is the container of c as engines know it; nil: none does.
func (q *Inquest) tenantOf(c *caseFile) *tenant {
	if c.tenant != nil {
		return c.tenant
	}
	return q.tenants.of(c.container)
}

// dressed is c's container as engines name it. Of one that none has told of yet
// Kubernetes may know the pod.
func (q *Inquest) dressed(c *caseFile) *death.Container {
	d := q.byEngines(c)
	if d == nil || d.Pod == nil || d.Pod.UID == "" || d.Pod.Name != "" {
		return d
	}
	p := q.pods.byUID[d.Pod.UID]
	if p == nil {
		return d
	}
	named := *d
	named.Pod = joinPods(d.Pod, &p.Pod, false)
	return &named
}

// byEngines is c's container as engines name it.
func (q *Inquest) byEngines(c *caseFile) *death.Container {
	if t := q.tenantOf(c); t != nil && c.container != nil {
		return t.dressAsOf(c, c.container)
	}
	if c.container != nil {
		return c.container
	}
	of := q.left(c)
	if t := q.tenants.of(of); t != nil {
		return t.dressAsOf(c, of)
	}
	return of
}
