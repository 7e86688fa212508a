// SPDX-License-Identifier: Apache-2.0

// Package rig runs a whole agent for tests, and asks it over HTTP.
package rig

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/agent"
	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/oomtest"
)

// Patience is how long a claim may take on a slow (emulated) machine. The inquest
// itself may wait 40 seconds for a counter.
const Patience = time.Minute

// Agent is a running agent and its client.
type Agent struct {
	Client *api.Client
	Base   string // its URL
	Stop   func() // may be called again
	Began  time.Time
}

// Start runs an agent until the test ends. change sees its options first.
func Start(t *testing.T, change func(*agent.Options)) *Agent {
	t.Helper()
	o := agent.Defaults()
	o.NodeName = "test-node"
	o.History.Path = filepath.Join(t.TempDir(), "deaths.db")
	o.Web.ListenAddress = []string{"127.0.0.1:0"}
	o.Logger = slog.New(slog.NewTextHandler(writer{t}, nil))
	change(&o)
	r := &Agent{Began: time.Now()}
	ctx, cancel := context.WithCancel(context.Background())
	a, err := agent.New(ctx, o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	r.Base = "http://" + a.Addresses()[0].String()
	stopped := false
	r.Stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("agent: %v", err)
		}
	}
	t.Cleanup(r.Stop)
	if r.Client, err = api.NewClient(r.Base, nil); err != nil {
		t.Fatal(err)
	}
	r.WaitUp(t)
	return r
}

type writer struct{ t *testing.T }

func (w writer) Write(p []byte) (int, error) {
	w.t.Logf("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

// WaitUp waits until each source that has something to watch watches it.
func (r *Agent) WaitUp(t *testing.T) {
	t.Helper()
	Poll(t, func() error {
		st, err := r.Client.Status(t.Context())
		if err != nil {
			return err
		}
		for _, s := range st.Sources {
			if s.Enabled && !s.Up && !s.Absent {
				return fmt.Errorf("source %s is down: %s", s.Name, s.Reason)
			}
		}
		return nil
	})
}

// Poll ends the test unless f succeeds in time.
func Poll(t *testing.T, f func() error) {
	t.Helper()
	if err := oomtest.Poll(Patience, f); err != nil {
		t.Fatal(err)
	}
}

// Sketch is what a test that failed shows of deaths: the first five, with
// their evidence.
func Sketch(ds []death.Death) string {
	var s strings.Builder
	for i, d := range ds {
		if i == 5 {
			s.WriteString("...\n")
			break
		}
		fmt.Fprintf(&s, "- %s %s %s %s: %s\n", d.Subject, d.Cause, d.Confidence, d.Rule, d.Summary)
		for _, e := range d.Evidence {
			fmt.Fprintf(&s, "    %s %s\n", e.Source, e.Text)
		}
	}
	return s.String()
}
