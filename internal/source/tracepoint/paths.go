// SPDX-License-Identifier: Apache-2.0

package tracepoint

import (
	"bytes"
	"container/list"
	"strings"
)

// maxPaths bounds the cgroups whose path is kept. It is that of the map
// "sent" of the programs: at some 300 bytes each, little over a megabyte.
const maxPaths = 4096

// paths keeps the paths of the cgroups that were used last.
type paths struct {
	limit     int
	forgotten func(id uint64) // may be nil
	byID      map[uint64]*list.Element
	byUse     *list.List // of namedCgroup, most recent first
}

type namedCgroup struct {
	id   uint64
	path string
}

func newPaths(limit int, forgotten func(id uint64)) *paths {
	return &paths{limit: limit, forgotten: forgotten, byID: make(map[uint64]*list.Element), byUse: list.New()}
}

func (p *paths) put(id uint64, path string) {
	if e, ok := p.byID[id]; ok {
		e.Value = namedCgroup{id, path}
		p.byUse.MoveToFront(e)
		return
	}
	p.byID[id] = p.byUse.PushFront(namedCgroup{id, path})
	if p.byUse.Len() <= p.limit {
		return
	}
	old, _ := p.byUse.Remove(p.byUse.Back()).(namedCgroup) // nothing else is put in
	delete(p.byID, old.id)
	if p.forgotten != nil {
		p.forgotten(old.id)
	}
}

// get returns the path of a cgroup, empty where it is not known.
func (p *paths) get(id uint64) string {
	e, ok := p.byID[id]
	if !ok {
		return ""
	}
	p.byUse.MoveToFront(e)
	c, _ := e.Value.(namedCgroup)
	return c.path
}

// joinPath makes a path of n zero-ended names, innermost first.
func joinPath(text []byte, n int) (string, bool) {
	if n < 0 || n > maxLevels {
		return "", false
	}
	if n == 0 {
		return "/", len(text) == 0
	}
	var names [maxLevels][]byte
	for i := range n {
		end := bytes.IndexByte(text, 0)
		if end <= 0 {
			return "", false
		}
		names[i], text = text[:end], text[end+1:]
	}
	var b strings.Builder
	for i := n - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.Write(names[i])
	}
	return b.String(), true
}

// parentPath returns the path of the cgroup above, empty where there is none
// or path is not known.
func parentPath(path string) string {
	if path == "" || path == "/" {
		return ""
	}
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "/"
}
