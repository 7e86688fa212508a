// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

// parts counts the writes of an answer.
type parts struct {
	http.ResponseWriter
	n int
}

func (p *parts) Write(b []byte) (int, error) {
	p.n++
	return p.ResponseWriter.Write(b)
}

func TestHandler_FewParts(t *testing.T) {
	living := many(200)
	m := metrics.New(metrics.Options{Containers: func() []metrics.Container { return slices.Clone(living) }})
	for _, encoding := range []string{"identity", "gzip"} {
		rec, req := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
		req.Header.Set("Accept-Encoding", encoding)
		p := &parts{ResponseWriter: rec}
		m.Handler().ServeHTTP(p, req)
		sent := rec.Body.Len()
		var body io.Reader = rec.Body
		if rec.Header().Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Fatal(err)
			}
			body = z
		}
		all, err := io.ReadAll(body)
		if err != nil || len(all) < 100_000 || all[len(all)-1] != '\n' {
			t.Fatalf("%s: %d bytes, %v", encoding, len(all), err)
		}
		if most := sent/(32<<10) + 2; p.n > most {
			t.Errorf("%s: %d bytes in %d parts, want at most %d", encoding, sent, p.n, most)
		}
	}
}

// BenchmarkScrape_HTTP is a scrape through a server.
func BenchmarkScrape_HTTP(b *testing.B) {
	living := many(200)
	m := metrics.New(metrics.Options{Containers: func() []metrics.Container { return slices.Clone(living) }})
	s := httptest.NewServer(m.Handler())
	defer s.Close()
	c := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer c.CloseIdleConnections()
	for b.Loop() {
		r, err := c.Get(s.URL)
		if err != nil {
			b.Fatal(err)
		}
		if _, err = io.Copy(io.Discard, r.Body); err != nil {
			b.Fatal(err)
		}
		r.Body.Close()
	}
}
