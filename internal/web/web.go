// SPDX-License-Identifier: Apache-2.0

// Package web serves what is known: pages for people, the JSON API of package
// api, its event stream, the metrics and the health checks. Everything is
// rendered on the server from embedded templates; the pages work without
// scripts and take nothing from elsewhere.
//
// Names of processes, cgroups and the like come from whoever runs them and
// are hostile: templates escape them, and characters that one cannot see are
// shown as escapes.
//
// Requests are bounded in size, time and number: see limit.go. What does not
// get a place is told to come again, by 503 and Retry-After.
//
// The http.Server around the handler is the caller's. It needs
// ReadHeaderTimeout 5 s, ReadTimeout 30 s, WriteTimeout 60 s (streams set
// their own deadlines), IdleTimeout 2 min, MaxHeaderBytes 32 KiB, and
// RegisterOnShutdown(Broker.Close), without which streams hold up Shutdown.
package web

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

// maxURL bounds a request's address, which holds the filters.
const maxURL = 16 << 10

// Store is what the pages read: the history. The error of Get matches
// api.ErrNotFound for an unknown id. An error about the query has a method
// BadQuery() bool that returns true, and a text for whoever asked; one about a
// damaged death has Unreadable() bool. List and Since leave such deaths out.
type Store interface {
	// List returns the newest deaths that q selects.
	List(ctx context.Context, q api.Query) (Page, error)
	// Get returns one death.
	Get(ctx context.Context, id string) (death.Death, error)
	// Since returns what q selects of the deaths that are new or amended
	// after a sequence number, in order, and where to go on from.
	Since(ctx context.Context, q api.Query, after int64) (entries []Entry, upTo int64, err error)
}

// Page is a part of a listing.
type Page struct {
	Deaths []death.Death
	// Next is the cursor of the page that follows; empty on the last one.
	Next string
	// Seq is the sequence number up to which the page knows everything.
	Seq int64
}

// Entry is a death with its sequence number, which rises with each new and
// each amended death.
type Entry struct {
	Seq   int64
	Death death.Death
}

// Options set up the handler. Store, Status, Ready and Broker must be there.
type Options struct {
	Store Store
	// Status says how the program is doing.
	Status func(context.Context) api.Status
	// Ready says whether at least one source is up, and how each of them is.
	Ready func() (bool, []api.SourceStatus)
	// History says whether deaths are kept, and how that goes in a line; nil
	// leaves it out.
	History func() (bool, string)
	// Containers lists those that are there; nil leaves them out.
	Containers func(api.ContainersQuery) []api.Container
	// Node gives the node's memory map; nil leaves it and its page out.
	Node func(context.Context) (api.NodeMap, error)
	// Broker tells of new deaths.
	Broker *Broker
	// Metrics serves TelemetryPath; nil leaves it out.
	Metrics http.Handler
	// TelemetryPath is "/metrics" when empty.
	TelemetryPath string
	// RoutePrefix is the path below which everything lives; "" and "/" are none.
	RoutePrefix string
	// ExternalURL is how the outside reaches this; its path is what links
	// begin with. Nil: RoutePrefix is.
	ExternalURL *url.URL
	Version     string
	// Logger takes what goes wrong; nil discards.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// handler is what the routes share.
type handler struct {
	Options
	base    string // what links begin with; no slash at the end
	log     *slog.Logger
	pages   *pages
	streams chan struct{} // one token for each open stream
}

// route is one path and what serves it.
type route struct {
	path    string
	methods []string
	serve   http.HandlerFunc
}

// New returns the handler for everything, or an error that names the flag
// whose value is no path. It panics when the embedded templates are broken,
// which a test rules out.
func New(o Options) (http.Handler, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.TelemetryPath == "" {
		o.TelemetryPath = "/metrics"
	}
	h := &handler{Options: o, log: o.Logger, streams: make(chan struct{}, maxStreams)}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	prefix := cleanPrefix(o.RoutePrefix)
	if prefix != "" && !plainPath(prefix) {
		return nil, fmt.Errorf("--web.route-prefix (or the path of --web.external-url) %q: want %s", o.RoutePrefix, plainWanted)
	}
	if err := checkTelemetryPath(o.TelemetryPath); err != nil {
		return nil, err
	}
	h.base = prefix
	if o.ExternalURL != nil {
		h.base = cleanPrefix(o.ExternalURL.Path)
	}
	h.pages = newPages(h.base, o.Now)

	mux := http.NewServeMux()
	for _, r := range h.routes() {
		mux.Handle(r.path, only(r.methods, r.serve))
	}
	if prefix == "" {
		return h.guard(mux), nil
	}
	outer := http.NewServeMux()
	outer.Handle(prefix+"/", http.StripPrefix(prefix, mux))
	outer.Handle("/{$}", http.RedirectHandler(h.base+"/", http.StatusFound))
	outer.HandleFunc("/", h.notFound)
	return h.guard(outer), nil
}

// routes is everything that is served.
func (h *handler) routes() []route {
	get := []string{http.MethodGet, http.MethodHead}
	// Where the history is read requests wait for their turn. Probes and
	// assets are answered at once.
	waits := &backlog{most: maxBacklog}
	turn := limits{newPlaces(maxRequests, maxWaiting), maxSmall, waits}.limited
	routes := []route{
		{"/{$}", get, turn(h.listPage)},
		{"/deaths/{id}", get, turn(h.deathPage)},
		{"/node", get, turn(h.nodePage)},
		{"/assets/{file}", get, h.pages.serveAsset},
		{api.PathDeaths, get, turn(h.listJSON)},
		{api.PathDeaths + "/{id}", get, turn(h.deathJSON)},
		{api.PathStream, []string{http.MethodGet}, h.stream},
		{api.PathStatus, get, turn(h.statusJSON)},
		{api.PathContainers, get, turn(h.containersJSON)},
		{api.PathNode, get, turn(h.nodeJSON)},
		{"/-/healthy", get, h.healthy},
		{"/-/ready", get, h.ready},
		{"/", get, turn(h.notFound)},
	}
	if h.Metrics != nil {
		scrape := limits{newPlaces(maxScrapes, maxWaitingScrapes), maxScrape, waits}.limited
		routes = append(routes, route{h.TelemetryPath, get, scrape(h.Metrics.ServeHTTP)})
	}
	return routes
}

// plainWanted is what plainPath takes.
const plainWanted = `a path such as "/a/b", of letters, digits and "-._~"`

// plainPath tells whether p can be a route as it stands: the mux gives some
// characters a meaning, and others look different in an address.
func plainPath(p string) bool {
	const digits, letters = "0123456789", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return strings.HasPrefix(p, "/") && p != "/" && path.Clean(p) == p && strings.Trim(p, digits+letters+"-._~/") == ""
}

// checkTelemetryPath refuses one that is no path or may be another page's.
func checkTelemetryPath(p string) error {
	if !plainPath(p) {
		return fmt.Errorf("--web.telemetry-path %q: want %s", p, plainWanted)
	}
	first, _, _ := strings.Cut(p[1:], "/")
	switch first {
	case "deaths", "node", "assets", "api", "-", "debug":
		return fmt.Errorf("--web.telemetry-path %q: what is below /%s is something else; want a path of its own, such as \"/metrics\"", p, first)
	}
	return nil
}

// cleanPrefix makes "" or "/a/b" of a path.
func cleanPrefix(p string) string {
	if p = strings.Trim(p, "/"); p == "" {
		return ""
	}
	return "/" + p
}

// only refuses other methods.
func only(methods []string, next http.HandlerFunc) http.HandlerFunc {
	allow := strings.Join(methods, ", ")
	return func(w http.ResponseWriter, r *http.Request) {
		for _, m := range methods {
			if r.Method == m {
				next(w, r)
				return
			}
		}
		w.Header().Set("Allow", allow)
		writeError(w, http.StatusMethodNotAllowed, fmt.Sprintf("method %s: want %s", r.Method, allow))
	}
}

// policy lets a page have its own style, script and image, talk to its own
// server, and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guard sets what every answer carries and bounds what a request may be.
func (h *handler) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", policy)
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("X-Frame-Options", "DENY")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		// Those that are limited and streams set times of their own. An error
		// is the client's going away.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(maxTime))
		if len(r.RequestURI) > maxURL {
			writeError(w, http.StatusRequestURITooLong, fmt.Sprintf("the address has %d bytes: want at most %d", len(r.RequestURI), maxURL))
			return
		}
		if r.ContentLength != 0 {
			// Nothing here takes a body. Without this the server waits for it
			// before it answers.
			head.Set("Connection", "close")
			r.Body = http.NoBody
		}
		next.ServeHTTP(w, r)
	})
}
