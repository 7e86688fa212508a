// SPDX-License-Identifier: Apache-2.0

package web

import (
	"net/http"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// nodeView is the page of the node's memory.
type nodeView struct {
	frame
	M      api.NodeMap
	Growth time.Duration // over which it was seen; 0: it was not
	// Parts are the bar of all memory.
	Parts   []part
	Figures []nodeFigure
	Orders  []oomOrder
}

type nodeFigure struct {
	api.NodeKind
	api.NodeFigure
}

// oomOrder is one order of the OOM killer, with what it is for.
type oomOrder struct {
	Name       string
	Candidates []api.OOMCandidate
}

// nodePage serves GET /node.
func (h *handler) nodePage(w http.ResponseWriter, r *http.Request) {
	m, code, text := h.nodeMap(r)
	if code != http.StatusOK {
		h.errorPage(w, r, code, text)
		return
	}
	v := nodeView{frame: h.frame(r, "Memory of the node"), M: m, Growth: time.Duration(m.GrowthSeconds * float64(time.Second))}
	for _, k := range api.NodeKinds() {
		if f, known := m.Memory[k.ID]; known {
			v.Figures = append(v.Figures, nodeFigure{k, f})
		}
	}
	v.Parts = nodeParts(m.Memory)
	for _, o := range []oomOrder{{"if the machine ran out of memory", m.OOMOrder}, {"if the limit of all pods were reached", m.PodsOOMOrder}} {
		if len(o.Candidates) > 0 {
			v.Orders = append(v.Orders, o)
		}
	}
	h.render(w, r, http.StatusOK, h.pages.node, v)
}

// nodeParts are the lines of the map that add up to the capacity.
func nodeParts(m map[string]api.NodeFigure) []part {
	classes := map[string]string{
		"pods_working_set": "anon", "containers_working_set": "shmem", "units_working_set": "sent", "hugepages": "huge",
		"unaccounted": "kernel", "reclaimable": "file", "free": "free",
	}
	var parts []part
	for _, k := range api.NodeKinds() {
		if class := classes[k.ID]; class != "" && m[k.ID].Bytes > 0 {
			parts = append(parts, part{Name: k.Title, Meaning: k.Meaning, Class: class, Bytes: m[k.ID].Bytes})
		}
	}
	return drawn(parts, max(1, m["capacity"].Bytes))
}

// leastSigned is the smallest growth that is worth a look.
const leastSigned = 1 << 20

// signed shows growth with its sign; nothing where it is next to none.
func signed(n *int64) string {
	switch {
	case n == nil || *n > -leastSigned && *n < leastSigned:
		return ""
	case *n > 0:
		return "+" + size(*n)
	}
	return size(*n)
}

func podTitle(p *death.Pod) string {
	if p.Name == "" {
		return p.UID
	}
	return p.Namespace + "/" + p.Name
}

// nodeJSON serves GET /api/v1/node.
func (h *handler) nodeJSON(w http.ResponseWriter, r *http.Request) {
	m, code, text := h.nodeMap(r)
	if code != http.StatusOK {
		writeError(w, code, text)
		return
	}
	h.writeJSON(w, r, m)
}

// nodeMap asks for the map; where there is none it says why.
func (h *handler) nodeMap(r *http.Request) (m api.NodeMap, code int, text string) {
	if h.Node == nil {
		return m, http.StatusNotFound, "there is no node here whose memory could be told"
	}
	m, err := h.Node(r.Context())
	if err != nil {
		return m, http.StatusServiceUnavailable, "the node's memory is not known: " + visible(err.Error())
	}
	return m, http.StatusOK, ""
}
