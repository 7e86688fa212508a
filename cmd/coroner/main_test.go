// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"coroner": func() { os.Exit(run()) }, pluginName: func() { os.Exit(run()) }})
}

// TestScripts runs testdata/*.txtar: one script for each subcommand, which
// reads as its manual. -update rewrites what they expect.
func TestScripts(t *testing.T) {
	logs, err := filepath.Abs("../../internal/parse/oomreport/testdata")
	if err != nil {
		t.Fatal(err)
	}
	deploy, err := filepath.Abs("../../deploy")
	if err != nil {
		t.Fatal(err)
	}
	server, kubeconfig := fakeAgent(t), fakeCluster(t).Kubeconfig(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("LOGS", logs)
			e.Setenv("DEPLOY", deploy)
			e.Setenv("FAKE_AGENT", server)
			e.Setenv("FAKE_CLUSTER", kubeconfig)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "kills":
				return canKill() == nil, nil
			}
			return false, errors.New("unknown condition " + cond)
		},
	})
}

// fakeAgent answers as an agent that knows two deaths, so that the commands
// that ask one can be tested on any system.
func fakeAgent(t *testing.T) string {
	t.Helper()
	deaths, err := os.ReadFile("testdata/deaths.json")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/deaths", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		q := r.URL.Query()
		searched := q.Get("q")
		known := q.Get("container") == "" && q.Get("pod") == "" && q.Get("unit") == "" ||
			strings.HasPrefix("web-1", q.Get("container")) && q.Get("container") != "" || q.Get("pod") == "cart-1"
		if in := q.Get("namespace"); in != "" && in != "n2" && q.Get("pod") == "" {
			known = false // of containerd's
		}
		if !known || searched != "" && !strings.Contains("shop/web", searched) {
			_, _ = w.Write([]byte(`{"deaths": []}`))
			return
		}
		_, _ = w.Write(deaths)
	})
	mux.HandleFunc("GET /api/v1/deaths/stream", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Last-Event-ID") != "" {
			http.Error(w, `{"error": "that is all"}`, http.StatusBadRequest) // ends the watch
			return
		}
		var page struct{ Deaths []json.RawMessage }
		if err := json.Unmarshal(deaths, &page); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for i, d := range page.Deaths {
			var line bytes.Buffer
			if err := json.Compact(&line, d); err != nil {
				t.Error(err)
			}
			_, _ = fmt.Fprintf(w, "id: %d\nevent: death\ndata: %s\n\n", i+1, line.Bytes())
		}
	})
	node, err := os.ReadFile("../../internal/nodemap/testdata/kubernetes.json")
	if err != nil {
		t.Fatal(err)
	}
	mux.HandleFunc("GET /api/v1/node", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(node)
	})
	mux.HandleFunc("GET /api/v1/deaths/{id}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"error": "no such death"}`))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

func TestParseBytes(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want int64
		ok   bool
	}{
		{"512", 512, true}, {"64K", 64 << 10, true}, {"1M", 1 << 20, true}, {"2GiB", 2 << 30, true}, {"0", 0, true},
		{"", 0, false}, {"-1", 0, false}, {"1.5M", 0, false}, {"1X", 0, false}, {"9999999999G", 0, false},
	} {
		got, err := parseBytes(tc.in)
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("parseBytes(%q) = %d, %v; want %d, ok %v", tc.in, got, err, tc.want, tc.ok)
		}
	}
}
