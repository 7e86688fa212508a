// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// listJSON serves GET /api/v1/deaths.
func (h *handler) listJSON(w http.ResponseWriter, r *http.Request) {
	q, err := h.query(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	// Read and written part by part: an answer may hold a thousand deaths, and
	// each of them a thousand tasks.
	left := q.Limit
	if left == 0 {
		left = api.DefaultLimit
	}
	q.Limit = min(left, batch)
	page, err := h.Store.List(r.Context(), q)
	if err != nil {
		code, text := h.failed(r, err)
		writeError(w, code, text)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	out := listWriter{w: w}
	for {
		if err := out.deaths(page.Deaths); err != nil {
			h.cut(r, err)
		}
		left -= len(page.Deaths)
		if left <= 0 || page.Next == "" || len(page.Deaths) == 0 {
			break
		}
		q.Cursor, q.Limit = page.Next, min(left, batch)
		if page, err = h.Store.List(r.Context(), q); err != nil {
			h.cut(r, err)
		}
	}
	if err := out.end(page.Next); err != nil {
		h.cut(r, err)
	}
}

// cut ends an answer in the middle, so that nobody takes it for a whole one.
func (h *handler) cut(r *http.Request, err error) {
	if r.Context().Err() == nil {
		h.log.Debug("answer cut off", "path", r.URL.Path, "err", err)
	}
	panic(http.ErrAbortHandler)
}

// listWriter writes an api.DeathsPage in parts.
type listWriter struct {
	w           io.Writer
	begun, some bool
}

func (l *listWriter) deaths(ds []death.Death) error {
	if !l.begun {
		l.begun = true
		if _, err := io.WriteString(l.w, `{"deaths":[`); err != nil {
			return err
		}
	}
	for i := range ds {
		body, err := json.Marshal(&ds[i])
		if err != nil {
			return fmt.Errorf("encode death %q: %w", ds[i].ID, err)
		}
		if l.some {
			body = append([]byte{','}, body...)
		}
		l.some = true
		if _, err := l.w.Write(body); err != nil {
			return err
		}
	}
	return nil
}

func (l *listWriter) end(next string) error {
	tail := "]}\n"
	if next != "" {
		body, err := json.Marshal(next)
		if err != nil {
			return err
		}
		tail = `],"next":` + string(body) + "}\n"
	}
	_, err := io.WriteString(l.w, tail)
	return err
}

// deathJSON serves GET /api/v1/deaths/{id}.
func (h *handler) deathJSON(w http.ResponseWriter, r *http.Request) {
	d, err := h.Store.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		code, text := h.failed(r, err)
		writeError(w, code, text)
		return
	}
	h.writeJSON(w, r, d)
}

// statusJSON serves GET /api/v1/status.
func (h *handler) statusJSON(w http.ResponseWriter, r *http.Request) {
	s := h.Status(r.Context())
	if s.Sources == nil {
		s.Sources = []api.SourceStatus{}
	}
	h.writeJSON(w, r, s)
}

// containersJSON serves GET /api/v1/containers.
func (h *handler) containersJSON(w http.ResponseWriter, r *http.Request) {
	if h.Containers == nil {
		writeError(w, http.StatusNotFound, "this program knows no containers that live")
		return
	}
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		writeError(w, http.StatusBadRequest, "the address's parameters: "+err.Error())
		return
	}
	q, err := api.ParseContainersQuery(v)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	page := api.ContainersPage{Containers: h.Containers(q)}
	if page.Containers == nil {
		page.Containers = []api.Container{}
	}
	h.writeJSON(w, r, page)
}

// query reads the filters of a request.
func (h *handler) query(r *http.Request) (api.Query, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return api.Query{}, fmt.Errorf("the address's parameters: %w", err)
	}
	return api.ParseQuery(v, h.Now())
}

// failed turns an error of the store into a status and a text for whoever asked.
func (h *handler) failed(r *http.Request, err error) (int, string) {
	var bad interface{ BadQuery() bool }
	var unreadable interface{ Unreadable() bool }
	switch {
	case errors.Is(err, api.ErrNotFound):
		return http.StatusNotFound, fmt.Sprintf("no death has the id %q; it may be past the retention", r.PathValue("id"))
	case errors.As(err, &bad) && bad.BadQuery():
		return http.StatusBadRequest, err.Error()
	case errors.As(err, &unreadable) && unreadable.Unreadable():
		return http.StatusInternalServerError, visible(err.Error())
	case r.Context().Err() != nil:
		return http.StatusServiceUnavailable, "the request was given up"
	}
	h.log.Error("history not read", "path", r.URL.Path, "err", err)
	return http.StatusInternalServerError, "the history cannot be read; the agent's log says why"
}

func (h *handler) writeJSON(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		h.log.Error("answer not encoded", "path", r.URL.Path, "err", err)
		writeError(w, http.StatusInternalServerError, "the answer cannot be encoded; the agent's log says why")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	// An error here is the client's going away.
	_, _ = io.Copy(w, io.MultiReader(bytes.NewReader(body), strings.NewReader("\n")))
}

// writeError answers with the API's form of an error.
func writeError(w http.ResponseWriter, code int, text string) {
	body, err := json.Marshal(api.Error{Error: text})
	if err != nil {
		body = []byte(`{"error":"unknown"}`) // cannot be: a string always encodes
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n'))
}

// notFound answers for paths that are not there: as JSON below /api/, as a
// page elsewhere.
func (h *handler) notFound(w http.ResponseWriter, r *http.Request) {
	text := fmt.Sprintf("there is nothing at %s", visible(r.URL.Path))
	if strings.HasPrefix(r.URL.Path, "/api/") {
		writeError(w, http.StatusNotFound, text)
		return
	}
	h.errorPage(w, r, http.StatusNotFound, text)
}

// healthy serves /-/healthy: the program runs and answers.
func (h *handler) healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "healthy\n")
}

// ready serves /-/ready: whether any source is up, and a line for each. A
// history that does not take deaths is told, and is no reason to be left alone
// with them: the agent watches, and its metrics and pages are needed then.
func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	ok, sources := h.Ready()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	keeps, history := true, ""
	if h.History != nil {
		keeps, history = h.History()
	}
	verdict := "ready\n"
	switch {
	case !ok:
		verdict = "not ready: no source is up\n"
		w.WriteHeader(http.StatusServiceUnavailable)
	case !keeps:
		verdict = "ready, but deaths are not kept as asked\n"
	}
	_, _ = io.WriteString(w, verdict)
	for _, s := range sources {
		fmt.Fprintln(w, sourceLine(s))
	}
	if history != "" {
		fmt.Fprintln(w, "history: "+visible(history))
	}
}

// sourceLine says in one line how a source is.
func sourceLine(s api.SourceStatus) string {
	line := string(s.Name) + ": "
	switch {
	case !s.Enabled:
		return line + "off (by its flag)"
	case s.Up:
		line += "up"
	case s.Absent:
		line += "absent"
	default:
		line += "down"
	}
	if s.Mode != "" {
		line += " (" + visible(s.Mode) + ")"
	}
	if s.Reason != "" {
		line += ": " + visible(s.Reason)
	}
	return line
}
