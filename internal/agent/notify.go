// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
)

// manager is the service manager that started the agent (sd_notify(3)); nil:
// there is none.
type manager struct{ conn net.Conn }

// dialManager connects to the socket of $NOTIFY_SOCKET.
func dialManager(ctx context.Context, socket string) (*manager, error) {
	if socket == "" {
		return nil, nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unixgram", socket)
	if err != nil {
		return nil, fmt.Errorf("service manager: %w", err)
	}
	return &manager{conn}, nil
}

// tell sends lines like READY=1. That nobody hears is no reason not to watch.
func (m *manager) tell(lines ...string) {
	if m != nil {
		_, _ = m.conn.Write([]byte(strings.Join(lines, "\n")))
	}
}

func (m *manager) close() {
	if m != nil {
		_ = m.conn.Close()
	}
}

// reassure tells the manager at half of its patience that the inquest still
// hears the time: it stores new figures with each tick.
func (a *Agent) reassure(ctx context.Context, m *manager) {
	if m == nil || a.opts.Service.Watchdog <= 0 {
		return
	}
	ticker := time.NewTicker(a.opts.Service.Watchdog / 2)
	defer ticker.Stop()
	last := a.pipe.stats.Load()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if now := a.pipe.stats.Load(); now != last {
			last = now
			m.tell("WATCHDOG=1")
		}
	}
}

// sourcesLine is what "systemctl status" shows.
func sourcesLine(ss []api.SourceStatus) string {
	var parts []string
	for _, s := range ss {
		switch {
		case s.Up && s.Mode != "" && s.Mode != string(s.Name):
			parts = append(parts, fmt.Sprintf("%s (%s)", s.Name, s.Mode))
		case s.Up:
			parts = append(parts, string(s.Name))
		case s.Enabled && !s.Absent: // no engine is no lack
			parts = append(parts, fmt.Sprintf("no %s: %s", s.Name, s.Reason))
		}
	}
	if len(parts) == 0 {
		return "STATUS=watching nothing"
	}
	return "STATUS=" + strings.Join(strings.Fields("watching "+strings.Join(parts, ", ")), " ")
}
