// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/death"
)

func TestSourcesLine(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []api.SourceStatus
		want string
	}{
		{"nothing", []api.SourceStatus{{Name: death.SourceKmsg}}, "STATUS=watching nothing"},
		{"some", []api.SourceStatus{
			{Name: death.SourceTracepoint, Enabled: true, Reason: "needs CAP_BPF\nREADY=0"},
			{Name: death.SourceKmsg, Enabled: true, Up: true, Mode: "kmsg"},
			{Name: death.SourceCgroup, Enabled: true, Up: true, Mode: "v2"},
		}, "STATUS=watching no tracepoint: needs CAP_BPF READY=0, kmsg, cgroup (v2)"},
	} {
		if got := sourcesLine(tt.in); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestAgent_TellsItsManager: ready once it watches, alive while it does, and
// stopping.
func TestAgent_TellsItsManager(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no unixgram sockets")
	}
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	hear := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("waiting for %s: %v", want, err)
			}
			if strings.Contains("\n"+string(buf[:n])+"\n", "\n"+want+"\n") {
				return
			}
		}
	}
	t.Run("run", func(t *testing.T) {
		o := idle(t)
		o.Service = ServiceOptions{NotifySocket: socket, Watchdog: 200 * time.Millisecond}
		running(t, o)
		hear("READY=1")
		hear("WATCHDOG=1")
		hear("WATCHDOG=1")
	})
	hear("STOPPING=1")
}

func TestNew_NoSuchManager(t *testing.T) {
	o := idle(t)
	o.Service.NotifySocket = filepath.Join(t.TempDir(), "none")
	running(t, o) // and runs all the same
}
