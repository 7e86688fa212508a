// SPDX-License-Identifier: Apache-2.0

package web

import (
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/api"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestRoutes(t *testing.T) {
	s := newSite(t, nil)
	s.put(sampleDeaths()...)
	_, names := loadAssets()
	const page, data, text = "text/html; charset=utf-8", "application/json", "text/plain; charset=utf-8"
	for _, tt := range []struct {
		method, target string
		code           int
		contentType    string
		contains       string
	}{
		{"GET", "/", 200, page, "checkout-7d9f4c5b6-x2x8k / checkout-api"},
		{"HEAD", "/", 200, page, ""},
		{"GET", "/?q=redis", 200, page, "redis-0 / redis"},
		{"GET", "/?q=&namespace=&since=&cause=killed", 200, page, "ssh.service"},
		{"GET", "/?q=nothinglikethis", 200, page, "No death like that"},
		{"GET", "/?limit=2", 200, page, "Older deaths"},
		{"GET", "/?cause=none", 400, page, "cause: &#34;none&#34; is none"},
		{"GET", "/?cursor=x", 400, page, "cursor"},
		{"GET", "/?q=%zz", 400, page, "invalid URL escape"},
		{"POST", "/", 405, data, "GET, HEAD"},
		{"GET", "/deaths/oom-3f2a9c-4211", 200, page, "2026-03-04 11:56:59.800 UTC"},
		{"GET", "/deaths/" + url.PathEscape("hostile/../<b>?#"), 200, page, "hostile/../&lt;b&gt;"},
		{"GET", "/deaths/none", 404, page, "no death has the id"},
		{"DELETE", "/deaths/oom-3f2a9c-4211", 405, data, "method DELETE"},
		{"GET", "/nothing", 404, page, "there is nothing at /nothing"},
		{"GET", "/deaths/", 404, page, "there is nothing"},
		{"GET", "/api/v1/deaths", 200, data, `"id":"oom-3f2a9c-4211"`},
		{"GET", "/api/v1/deaths?cause=killed&cause=oom_node", 200, data, `"id":"kill-5150"`},
		{"GET", "/api/v1/deaths?container=none", 200, data, `{"deaths":[]}`},
		{"GET", "/api/v1/deaths?limit=0", 400, data, `"error":"limit: \"0\" is out of range`},
		{"GET", "/api/v1/deaths?limit=1001", 400, data, `1 to 1000`},
		{"GET", "/api/v1/deaths?since=tomorrow", 400, data, `RFC 3339`},
		{"GET", "/api/v1/deaths?cause=oom", 400, data, `oom_container_limit`},
		{"GET", "/api/v1/deaths?namepsace=shop", 400, data, `is no parameter`},
		{"GET", "/api/v1/deaths?cursor=x", 400, data, `"error":"cursor: `},
		{"GET", "/api/v1/deaths?q=a&q=b", 400, data, `q: given 2 times`},
		{"GET", "/api/v1/deaths?q=%22%28%00", 200, data, `{"deaths":`},
		{"POST", "/api/v1/deaths", 405, data, "GET, HEAD"},
		{"GET", "/api/v1/deaths/kill-5150", 200, data, `"killer":{"pid":5150`},
		{"GET", "/api/v1/deaths/none", 404, data, `no death has the id \"none\"`},
		{"GET", "/api/v1/deaths/stream?limit=1", 400, data, `limit: a stream has none`},
		{"GET", "/api/v1/deaths/stream?last_event_id=x", 400, data, `Last-Event-ID`},
		{"HEAD", "/api/v1/deaths/stream", 405, data, ``},
		{"GET", "/api/v1/status", 200, data, `"node_oom_kills":1290,"unattributed_oom_kills":0`},
		{"GET", "/api/v1/nothing", 404, data, `{"error":"there is nothing at /api/v1/nothing"}`},
		{"GET", "/metrics", 200, text, "metrics here"},
		{"GET", "/-/healthy", 200, text, "healthy"},
		{"GET", "/-/ready", 200, text, "cgroup: down: memory.events: permission denied\ndocker: off"},
		{"GET", "/assets/" + names["style.css"], 200, "text/css; charset=utf-8", "prefers-color-scheme"},
		{"GET", "/assets/" + names["live.js"], 200, "text/javascript; charset=utf-8", "EventSource"},
		{"GET", "/assets/" + names["icon.svg"], 200, "image/svg+xml", "<svg"},
		{"GET", "/assets/style.css", 404, data, "no such asset"},
		{"GET", "/?q=" + strings.Repeat("x", maxURL), 414, data, "at most 16384"},
	} {
		t.Run(tt.method+" "+tt.target[:min(len(tt.target), 60)], func(t *testing.T) {
			w := s.do(tt.method, tt.target)
			if w.Code != tt.code {
				t.Errorf("status %d, want %d: %s", w.Code, tt.code, w.Body)
			}
			if got := w.Header().Get("Content-Type"); got != tt.contentType {
				t.Errorf("content type %q, want %q", got, tt.contentType)
			}
			if tt.method != "HEAD" && !strings.Contains(w.Body.String(), tt.contains) {
				t.Errorf("no %q in %s", tt.contains, w.Body)
			}
			if w.Code == 405 && w.Header().Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if tt.contentType == data && !json.Valid(w.Body.Bytes()) {
				t.Errorf("no JSON: %s", w.Body)
			}
			for name, want := range map[string]string{
				"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff",
				"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
			} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			cache := "no-store"
			if w.Code == 200 && strings.HasPrefix(tt.target, "/assets/") {
				cache = "public, max-age=31536000, immutable"
			}
			if got := w.Header().Get("Cache-Control"); got != cache && tt.contentType != text {
				t.Errorf("Cache-Control: %q, want %q", got, cache)
			}
		})
	}
}

func TestPolicy_IsStrict(t *testing.T) {
	for _, want := range []string{"default-src 'none'", "style-src 'self'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy lacks %q", want)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("policy %q", policy)
	}
}

func TestReady_NoSourceIsUp(t *testing.T) {
	s := newSite(t, func(o *Options) {
		o.Ready = func() (bool, []api.SourceStatus) {
			return false, []api.SourceStatus{{Name: "kmsg", Enabled: true, Reason: "open: permission denied"}}
		}
	})
	w := s.get("/-/ready")
	if w.Code != http.StatusServiceUnavailable || w.Body.String() != "not ready: no source is up\nkmsg: down: open: permission denied\n" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

func TestNew_Prefixes(t *testing.T) {
	for _, tt := range []struct {
		name, prefix, external, home, links string
	}{
		{"route prefix alone", "/coroner/", "", "/coroner/", "/coroner"},
		{"external URL alone: a proxy strips the path", "", "https://example.com/ops/coroner/", "/", "/ops/coroner"},
		{"both", "/in", "https://example.com/out", "/in/", "/out"},
		{"neither", "", "", "/", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, func(o *Options) {
				o.RoutePrefix = tt.prefix
				if tt.external != "" {
					o.ExternalURL, _ = url.Parse(tt.external)
				}
			})
			s.put(sampleDeaths()...)
			w := s.get(tt.home)
			if w.Code != 200 {
				t.Fatalf("status %d", w.Code)
			}
			for _, want := range []string{`href="` + tt.links + `/deaths/kill-5150"`, `href="` + tt.links + `/assets/style.`, `data-live="` + tt.links + `/api/v1/deaths/stream?`} {
				if !strings.Contains(w.Body.String(), want) {
					t.Errorf("no %s", want)
				}
			}
			if w := s.get(tt.home + "-/healthy"); w.Code != 200 {
				t.Errorf("/-/healthy: %d", w.Code)
			}
			if tt.home != "/" {
				if w := s.get("/"); w.Code != http.StatusFound || w.Header().Get("Location") != tt.links+"/" {
					t.Errorf("/: %d to %q", w.Code, w.Header().Get("Location"))
				}
				if w := s.get("/-/healthy"); w.Code != 404 {
					t.Errorf("/-/healthy outside the prefix: %d", w.Code)
				}
			}
		})
	}
}

func TestJSON_Golden(t *testing.T) {
	s := newSite(t, nil)
	s.put(sampleDeaths()[0], sampleDeaths()[3])
	for name, target := range map[string]string{
		"deaths.json": "/api/v1/deaths?limit=2", "death.json": "/api/v1/deaths/kill-5150",
		"status.json": "/api/v1/status", "error.json": "/api/v1/deaths/none",
	} {
		var v any
		if err := json.Unmarshal(s.get(target).Body.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		got, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestListJSON_PagesToTheEnd(t *testing.T) {
	s := newSite(t, nil)
	s.put(many(25)...)
	target, seen := "/api/v1/deaths?limit=7", []string{}
	for {
		var page api.DeathsPage
		if err := json.Unmarshal(s.get(target).Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Deaths {
			seen = append(seen, d.ID)
		}
		if page.Next == "" {
			break
		}
		target = "/api/v1/deaths?limit=7&cursor=" + page.Next
	}
	if len(seen) != 25 || seen[0] != "many-0024" || seen[24] != "many-0000" {
		t.Errorf("%d deaths: %v", len(seen), seen)
	}
}

func TestStore_ErrorsAreNotToldToTheOutside(t *testing.T) {
	s := newSite(t, nil)
	if err := s.store.Store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/", "/deaths/x", "/api/v1/deaths", "/api/v1/deaths/x", "/api/v1/deaths/stream"} {
		w := s.get(target)
		if w.Code != 500 || strings.Contains(w.Body.String(), "sql") || !strings.Contains(w.Body.String(), "log says why") {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

func TestNew_PathsThatCannotBe(t *testing.T) {
	metrics := http.NotFoundHandler()
	for _, bad := range []string{
		"metrics", "/", "//", "/metrics/", "/a//b", "/a/../b", "/.", "/{$}", "/a{b", "/a}b", "/{x...}", "GET /metrics", "example.org/metrics",
		"/a b", "/%", "/%zz", "/-/read%79", "/a?b", "/a#b", "/\x1b[31m", "/é", "/-/ready", "/-/own", "/api/v1/deaths", "/deaths/{id}", "/deaths/x",
		"/assets/x", "/debug/pprof", "/deaths", " /metrics",
	} {
		h, err := New(Options{Metrics: metrics, TelemetryPath: bad})
		if h != nil || err == nil || !strings.Contains(err.Error(), "--web.telemetry-path") || !strings.Contains(err.Error(), "want") {
			t.Errorf("telemetry path %q: %v", bad, err)
		}
	}
	for _, bad := range []string{"a{b", "/a{b}", "/{$}", "a//b", "/a/../b", "..", "/a b", "/%zz", "/%41", "a?b", "/\x00", "/é"} {
		h, err := New(Options{Metrics: metrics, RoutePrefix: bad})
		if h != nil || err == nil || !strings.Contains(err.Error(), "--web.route-prefix") || !strings.Contains(err.Error(), "want") {
			t.Errorf("route prefix %q: %v", bad, err)
		}
	}
	for _, good := range []struct{ telemetry, prefix, want string }{
		{"", "", "/metrics"},
		{"/metrics", "/", "/metrics"},
		{"/internal/own-metrics_1.0~", "coroner", "/coroner/internal/own-metrics_1.0~"},
		{"/m", "/a/b/", "/a/b/m"},
	} {
		served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
		h, err := New(Options{Metrics: served, TelemetryPath: good.telemetry, RoutePrefix: good.prefix})
		if err != nil {
			t.Errorf("%+v: %v", good, err)
			continue
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, good.want, nil))
		if w.Code != http.StatusTeapot {
			t.Errorf("%s of %+v: %d", good.want, good, w.Code)
		}
	}
}

// Whatever a flag says, New does not panic.
func FuzzNew(f *testing.F) {
	f.Add("/metrics", "/coroner")
	f.Add("{$}", "a{b")
	f.Add("/-/read%79", "/%41")
	f.Fuzz(func(t *testing.T, telemetry, prefix string) {
		h, err := New(Options{Metrics: http.NotFoundHandler(), TelemetryPath: telemetry, RoutePrefix: prefix})
		if (h == nil) == (err == nil) {
			t.Errorf("%q, %q: handler %v, error %v", telemetry, prefix, h, err)
		}
	})
}
