// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// pages renders the templates.
type pages struct {
	list, death, node, trouble page
	assets                     map[string]asset
}

// page is a template that is parsed when somebody first looks at it: on most
// nodes nobody ever does, and all together hold 0.4 MiB.
type page func() *template.Template

func newPages(base string, now func() time.Time) *pages {
	served, names := loadAssets()
	funcs := template.FuncMap{
		"asset":    func(name string) string { return base + "/assets/" + names[name] },
		"path":     func(p string) string { return base + p },
		"deathURL": func(id string) string { return base + "/deaths/" + url.PathEscape(id) },
		"jsonURL":  func(id string) string { return base + api.PathDeaths + "/" + url.PathEscape(id) },
		"show":     func(v any) string { return visible(fmt.Sprint(v)) },
		"field":    fieldValue,
		"size":     size,
		"grouped":  grouped[int64],
		"number":   func(n int) string { return grouped(n) },
		"stamp":    func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"utc":      func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 UTC") },
		"clock":    func(t time.Time) string { return t.UTC().Format("15:04:05") },
		"fine":     func(t time.Time) string { return t.UTC().Format("15:04:05.000000") },
		"ago":      func(t time.Time) string { return ago(now(), t) },
		"span":     duration,
		"eta":      func(s *float64) string { return duration(time.Duration(*s * float64(time.Second))) },
		"signed":   signed,
		"percent":  func(p *float64) string { return strconv.FormatFloat(*p, 'f', 1, 64) + " %" },
		"podTitle": podTitle,
		"who":      who,
		"where":    where,
		"shortID":  shortID,
		"tone":     tone,
		"fate":     fateMeaning,
		"yes":      func(b *bool) bool { return b != nil && *b },
		"some":     func(n *uint64) bool { return n != nil && *n > 0 },
		"rate":     func(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) },
	}
	parse := func(name string) page {
		return sync.OnceValue(func() *template.Template {
			return template.Must(template.New("layout.html").Funcs(funcs).ParseFS(files, "templates/layout.html", "templates/parts.html", "templates/"+name))
		})
	}
	return &pages{list: parse("list.html"), death: parse("death.html"), node: parse("node.html"), trouble: parse("trouble.html"), assets: served}
}

// fateMeaning says in a few words how a process came to be among the dead.
func fateMeaning(f death.Fate) string {
	switch f {
	case death.FateVictim:
		return "chosen by the OOM killer"
	case death.FateGroup:
		return "killed with its group"
	case death.FateSharer:
		return "shared the victim's memory"
	case death.FateCollateral:
		return "ended with its pid namespace"
	case death.FateSignalled:
		return "killed by a signal"
	}
	return string(f)
}

// frame is what every page shows around its content.
type frame struct {
	Title   string
	Version string
	Live    string // the stream's address; empty: this page does not change
	Watch   string // the only death whose news matter
	Status  api.Status
	Mapped  bool // there is a page of the node
}

// errorPage shows what is wrong in the frame of the other pages.
func (h *handler) errorPage(w http.ResponseWriter, r *http.Request, code int, text string) {
	h.render(w, r, code, h.pages.trouble, struct {
		frame
		Code int
		Text string
	}{h.frame(r, http.StatusText(code)), code, text})
}

func (h *handler) frame(r *http.Request, title string) frame {
	return frame{Title: title, Version: h.Version, Status: h.Status(r.Context()), Mapped: h.Node != nil}
}

// render writes a page, whole or not at all.
func (h *handler) render(w http.ResponseWriter, r *http.Request, code int, p page, view any) {
	var b bytes.Buffer
	if err := p().Execute(&b, view); err != nil {
		h.log.Error("page not rendered", "path", r.URL.Path, "err", err)
		writeError(w, http.StatusInternalServerError, "the page cannot be rendered; the agent's log says why")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = b.WriteTo(w)
}
