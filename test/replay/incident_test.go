// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/sink/metrics"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// incident is a recording of real kills by coroner record.
const incident = "testdata/host-6.18-cgv1-five-ends.signals"

// replayed runs the inquest over a recording and gives every revision, in order.
func replayed(t *testing.T, path string) []death.Death {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	r, err := signal.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	q := inquest.New(inquest.Options{Node: r.Header.Node, BootID: r.Header.BootID})
	var out []death.Death
	for {
		s, err := r.Read()
		if errors.Is(err, io.EOF) {
			return append(out, q.Close()...)
		}
		if err != nil {
			t.Fatal(err)
		}
		q.Tick(s.Observed)
		q.Feed(s)
		out = append(out, q.Take()...)
	}
}

// TestIncident_Deaths: the last revisions of a recorded incident, whole.
func TestIncident_Deaths(t *testing.T) {
	last := map[string]death.Death{}
	var order []string
	for _, d := range replayed(t, incident) {
		if _, known := last[d.ID]; !known {
			order = append(order, d.ID)
		}
		last[d.ID] = d
	}
	var deaths []death.Death
	for _, id := range order {
		deaths = append(deaths, last[id])
	}
	text, err := json.MarshalIndent(map[string]any{"deaths": deaths}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "incident.json", string(text)+"\n")
}

// TestIncident_SameSignalsSameDeaths plays the recording again, and through
// its file form: nothing may differ.
func TestIncident_SameSignalsSameDeaths(t *testing.T) {
	first := replayed(t, incident)
	f, err := os.Open(incident)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	r, err := signal.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "again.signals")
	out, err := os.Create(again)
	if err != nil {
		t.Fatal(err)
	}
	w, err := signal.NewWriter(out, r.Header)
	if err != nil {
		t.Fatal(err)
	}
	for {
		s, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, replayed(t, again)); diff != "" {
		t.Errorf("the second time (-first +second):\n%s", diff)
	}
}

// TestIncident_Scrape is what Prometheus sees of the incident.
func TestIncident_Scrape(t *testing.T) {
	m := metrics.New(metrics.Options{Version: "test", Revision: "test", Now: func() time.Time { return time.Unix(0, 0) }})
	for _, d := range replayed(t, incident) {
		m.Kept(m.Prepare(m.Take(&d), false))
	}
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	var ours []string
	of := regexp.MustCompile(`^(# \w+ )?coroner_`)
	for l := range strings.Lines(rec.Body.String()) {
		if of.MatchString(l) && !strings.Contains(l, "goversion") {
			ours = append(ours, l)
		}
	}
	golden(t, "incident.scrape", strings.Join(ours, ""))
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}
