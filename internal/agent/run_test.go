// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/api"
)

// idle are options of an agent that watches nothing.
func idle(t *testing.T) Options {
	o := Defaults()
	o.Source = SourceOptions{}
	o.NodeName = "n1"
	o.History.Path = filepath.Join(t.TempDir(), "deaths.db")
	o.Web.ListenAddress = []string{"127.0.0.1:0"}
	return o
}

// running starts an agent and stops it with the test.
func running(t *testing.T, o Options) (*Agent, string) {
	t.Helper()
	a, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return a, "http://" + a.Addresses()[0].String()
}

func status(t *testing.T, url, user, password string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode
}

func TestAgent_SaysThatNothingWatches(t *testing.T) {
	a, base := running(t, idle(t))
	if got := status(t, base+"/-/ready", "", ""); got != http.StatusServiceUnavailable {
		t.Errorf("/-/ready without a source: %d, want 503", got)
	}
	if got := status(t, base+"/-/healthy", "", ""); got != http.StatusOK {
		t.Errorf("/-/healthy: %d, want 200", got)
	}
	client, err := api.NewClient(base, nil)
	if err != nil {
		t.Fatal(err)
	}
	st, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range st.Sources {
		if s.Enabled || s.Up || !strings.Contains(s.Reason, "--no-source."+string(s.Name)) {
			t.Errorf("source that was switched off: %+v", s)
		}
	}
	if got := a.sup.stats(); len(got) > 0 {
		t.Errorf("switched off, and down for who is alerted: %+v", got)
	}
}

// TestAgent_BasicAuthentication: the settings file of all Prometheus exporters
// guards everything.
func TestAgent_BasicAuthentication(t *testing.T) {
	o := idle(t)
	o.Web.ConfigFile = filepath.Join(t.TempDir(), "web.yml")
	// The password is "secret".
	config := "basic_auth_users:\n  ann: '$2a$04$0xBQC8wRUijls9j/KyyzRe1IESKcZCW8HP20sEbTWRE9OW2dpPgiy'\n"
	if err := os.WriteFile(o.Web.ConfigFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	_, base := running(t, o)
	for _, path := range []string{"/", "/metrics", "/api/v1/deaths"} {
		if got := status(t, base+path, "", ""); got != http.StatusUnauthorized {
			t.Errorf("%s without a password: %d, want 401", path, got)
		}
		if got := status(t, base+path, "ann", "secret"); got != http.StatusOK {
			t.Errorf("%s with the password: %d, want 200", path, got)
		}
	}
}

// TestAgent_BrokenHistory: a history that cannot be used is no reason not to
// watch, and nothing of it is lost.
func TestAgent_BrokenHistory(t *testing.T) {
	t.Run("damaged", func(t *testing.T) {
		o := idle(t)
		junk := []byte(strings.Repeat("no database ", 1000))
		if err := os.WriteFile(o.History.Path, junk, 0o600); err != nil {
			t.Fatal(err)
		}
		a, base := running(t, o)
		if got := status(t, base+"/api/v1/deaths", "", ""); got != http.StatusOK {
			t.Errorf("deaths: %d, want 200", got)
		}
		aside, err := filepath.Glob(o.History.Path + ".damaged-*")
		if err != nil || len(aside) != 1 {
			t.Fatalf("files set aside: %v", aside)
		}
		kept, err := os.ReadFile(aside[0])
		if err != nil || string(kept) != string(junk) {
			t.Errorf("what was set aside is not what was there (%v)", err)
		}
		if st := a.Status(t.Context()).History; !strings.Contains(st.Notice, aside[0]) {
			t.Errorf("notice %q does not name %s", st.Notice, aside[0])
		}
	})
	t.Run("no place for it", func(t *testing.T) {
		o := idle(t)
		o.History.Path = filepath.Join(t.TempDir(), "file", "deaths.db")
		if err := os.WriteFile(filepath.Dir(o.History.Path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		a, base := running(t, o)
		if got := status(t, base+"/", "", ""); got != http.StatusOK {
			t.Errorf("page: %d, want 200", got)
		}
		st := a.Status(t.Context()).History
		if st.Path != ":memory:" || !strings.Contains(st.Error, o.History.Path) || !strings.Contains(st.Error, "--history.path") {
			t.Errorf("history %+v does not name the file and the remedy", st)
		}
	})
}

func TestNew_PortInUse(t *testing.T) {
	_, base := running(t, idle(t))
	o := idle(t)
	o.Web.ListenAddress = []string{strings.TrimPrefix(base, "http://")}
	if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--web.listen-address") {
		t.Errorf("New on a port in use: %v", err)
	}
	if _, err := os.Stat(o.History.Path); err == nil {
		t.Error("a history was begun although there is no place to serve")
	}
}
