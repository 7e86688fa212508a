// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"slices"
	"sync"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/nodemap"
	"github.com/coroner-dev/coroner/internal/signal"
)

// maxShares bounds the containers, and the pods, whose shares are remembered.
const maxShares = 16384

// shares remember what pods and containers were promised and may have.
type shares struct {
	mu         sync.Mutex
	containers map[string]share       // by id
	pods       map[string]nodemap.Pod // by uid, as Kubernetes told of them
}

type share struct{ request, limit *int64 }

func newShares() *shares {
	return &shares{containers: map[string]share{}, pods: map[string]nodemap.Pod{}}
}

// feed takes what a signal says of them.
func (s *shares) feed(body signal.Body) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch b := body.(type) {
	case signal.PodSeen:
		if _, known := s.pods[b.Pod.UID]; known || len(s.pods) < maxShares {
			s.pods[b.Pod.UID] = nodemap.Pod{Pod: b.Pod, Priority: b.Priority, RequestBytes: b.RequestBytes, Told: true}
		}
	case signal.PodGone:
		delete(s.pods, b.UID)
	case signal.ContainerSeen:
		s.seen(&b)
	case signal.ContainerExit:
		delete(s.containers, b.ID)
	case signal.ContainerGone:
		delete(s.containers, b.ID)
	}
}

func (s *shares) seen(b *signal.ContainerSeen) {
	id := b.Container.ID
	if b.State == stateExited {
		delete(s.containers, id)
		return
	}
	before, known := s.containers[id]
	after := share{cmp.Or(b.RequestBytes, before.request), cmp.Or(b.LimitBytes, before.limit)}
	if after != (share{}) && (known || len(s.containers) < maxShares) {
		s.containers[id] = after
	}
}

// of sorts living containers into pods, with their shares.
func (s *shares) of(all []api.Container) (pods []nodemap.Pod, alone []nodemap.Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byUID := map[string]*nodemap.Pod{}
	for uid, p := range s.pods {
		byUID[uid] = &p
	}
	for i := range all {
		c := &all[i]
		sh := s.containers[c.ID]
		one := nodemap.Container{ID: c.ID, Name: nameOf(&c.Container), Cgroup: c.Cgroup, RequestBytes: sh.request, LimitBytes: sh.limit}
		if c.Pod == nil || c.Pod.UID == "" {
			alone = append(alone, one)
			continue
		}
		p := byUID[c.Pod.UID]
		if p == nil {
			p = &nodemap.Pod{Pod: *c.Pod}
			byUID[c.Pod.UID] = p
		}
		p.Containers = append(p.Containers, one)
	}
	for _, p := range byUID {
		pods = append(pods, *p)
	}
	slices.SortFunc(pods, func(a, b nodemap.Pod) int { return cmp.Compare(a.UID, b.UID) })
	return pods, alone
}

func nameOf(c *death.Container) string {
	if c.Namespace != "" && c.Name != "" {
		return c.Namespace + "/" + c.Name
	}
	return c.Name
}
