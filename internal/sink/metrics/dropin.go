// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"slices"
	"sync"

	dto "github.com/prometheus/client_model/go"

	"github.com/coroner-dev/coroner/internal/death"
)

// The runtimes whose containers have labels of their own kind.
const (
	runtimeDocker = "docker"
	// notDocker is docker_container_id of a container of another runtime.
	notDocker = "not-a-docker-container"
)

// facts are what the labels of the three metrics of missing-container-metrics
// are made of.
type facts struct{ id, runtime, name, image, imageID, namespace, pod string }

func factsOf(c *death.Container) facts {
	f := facts{id: c.ID, runtime: c.Runtime, name: c.Name, image: c.Image, imageID: c.ImageID}
	if c.Pod != nil {
		f.namespace, f.pod = c.Pod.Namespace, c.Pod.Name
	}
	return f
}

// pairs are the labels in the order of their names. Each has the form in which
// missing-container-metrics shows it, which is that of kube_pod_container_info
// where there is such a one.
func (f facts) pairs() []*dto.LabelPair {
	id, dockerID := f.id, notDocker
	if f.runtime != "" {
		id = f.runtime + "://" + f.id
	}
	switch f.runtime {
	case runtimeDocker:
		dockerID = f.id
	case "":
		dockerID = "" // it may be one
	}
	return []*dto.LabelPair{
		pairOf("container_id", label(id)),
		pairOf("container_short_id", label(f.id[:min(len(f.id), shortID)])),
		pairOf("docker_container_id", label(dockerID)),
		pairOf("image_id", label(f.imageLabel())),
		pairOf("name", label(f.name)),
		pairOf("namespace", label(f.namespace)),
		pairOf("pod", label(f.pod)),
	}
}

func (f facts) imageLabel() string {
	switch {
	case f.runtime == runtimeDocker && f.image != "":
		return "docker-pullable://" + f.image
	case f.runtime == runtimeDocker && f.imageID != "":
		return "docker://" + f.imageID
	}
	return cmp.Or(f.image, f.imageID)
}

// identity is a container with its label pairs, which all scrapes share.
type identity struct {
	facts
	pairs []*dto.LabelPair
	used  uint64
}

// identities keeps the label pairs of the last scrape for the next.
type identities struct {
	mu   sync.Mutex
	turn uint64
	last map[string]*identity
}

// of gives the containers' label pairs in the order of containers, and forgets
// those of others.
func (x *identities) of(containers []Container) []*identity {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.turn++
	if x.last == nil {
		x.last = map[string]*identity{}
	}
	out := make([]*identity, len(containers))
	for i := range containers {
		f := factsOf(&containers[i].Container)
		e := x.last[f.id]
		if e == nil || e.facts != f {
			e = &identity{facts: f, pairs: f.pairs()}
			x.last[f.id] = e
		}
		e.used = x.turn
		out[i] = e
	}
	if len(x.last) > len(containers) {
		for id, e := range x.last {
			if e.used != x.turn {
				delete(x.last, id)
			}
		}
	}
	return out
}

// bounded gives at most as many containers, in the order of their labels, the
// living before the removed ones.
func bounded(known []Container, most int) []Container {
	known = slices.DeleteFunc(known, func(c Container) bool { return c.ID == "" })
	if len(known) > most {
		slices.SortFunc(known, func(a, b Container) int {
			if a.Removed != b.Removed {
				return cmp.Compare(truth(a.Removed), truth(b.Removed))
			}
			return cmp.Compare(a.ID, b.ID)
		})
		known = known[:most]
	}
	slices.SortFunc(known, func(a, b Container) int {
		return cmp.Or(cmp.Compare(a.Runtime, b.Runtime), cmp.Compare(a.ID, b.ID))
	})
	return slices.CompactFunc(known, func(a, b Container) bool { return a.Runtime == b.Runtime && a.ID == b.ID })
}

// dropIn shows the three metrics of missing-container-metrics.
func (g *gatherer) dropIn(known []Container) []*dto.MetricFamily {
	known = bounded(known, g.m.opts.MaxSeries)
	kills := g.m.killsOf(known)
	if len(known) == 0 {
		return nil
	}
	restarts, ooms, exits := family(containerRestarts), family(containerOOMs), family(containerLastExit)
	for _, f := range []*dto.MetricFamily{restarts, ooms, exits} {
		f.Metric = make([]*dto.Metric, 0, len(known))
	}
	for i, e := range g.identities.of(known) {
		restarts.Metric = append(restarts.Metric, counter(e.pairs, uint64(max(0, known[i].Restarts))))
		ooms.Metric = append(ooms.Metric, counter(e.pairs, kills[i]))
		exits.Metric = append(exits.Metric, gauge(e.pairs, float64(known[i].ExitCode)))
	}
	return []*dto.MetricFamily{restarts, ooms, exits}
}

// killsOf counts the OOM kills of each container, as far as they are kept.
func (m *Metrics) killsOf(known []Container) []uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, now := m.byID, m.opts.Now()
	l.scrape++
	out := make([]uint64, len(known))
	for i := range known {
		if t := l.tallies[keyOfID(known[i].ID)]; t != nil {
			out[i], t.touched = t.visible().kills, now
		}
	}
	for _, t := range l.tallies {
		t.shown = t.visible() == t.taken // those of others as well: nobody will ever see them
	}
	l.sweep(keepGone)
	return out
}
