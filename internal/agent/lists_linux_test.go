// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/api"
	"github.com/coroner-dev/coroner/internal/host"
)

// TestServer_CrowdOfLists: a thousand clients that want the longest list of
// deaths of 8 KB, as API, page and stream, and never read: memory is bounded.
func TestServer_CrowdOfLists(t *testing.T) {
	const clients, bound = 1000, 100 << 20
	a, base := running(t, idle(t))
	bigHistory(t, a.store, 1000)
	debug.FreeOSMemory()
	before, most := resident(t), 0
	narrow := net.Dialer{Control: smallWindow}
	asks := []rude{
		say(request("/api/v1/deaths?limit=1000", "")),
		say(request("/?limit=1000", "")),
		say(request(api.PathStream+"?last_event_id=0", "")),
		say(request("/api/v1/deaths?limit=20", "")),
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			for ctx.Err() == nil {
				if c, err := narrow.DialContext(ctx, "tcp", a.Addresses()[0].String()); err == nil {
					asks[i%len(asks)](ctx, c)
					_ = c.Close()
				}
				pause(ctx, 50*time.Millisecond)
			}
		})
	}
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); pause(ctx, 50*time.Millisecond) {
		if got := fresh(t, base+"/-/healthy"); got != http.StatusOK {
			t.Errorf("/-/healthy: %d", got)
		}
		most = max(most, resident(t))
	}
	cancel()
	all.Wait()
	t.Logf("resident from %d to %d MiB, the clients' own share among it", before>>20, most>>20)
	if most-before > bound && !raceDetector() {
		t.Errorf("grew by %d MiB, want at most %d", (most-before)>>20, bound>>20)
	}
}

// resident is what this process has in memory.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(host.Roots{}.ProcPath("self", "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// raceDetector tells whether this test was built with -race, which takes
// several times the memory.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" && s.Value == "true" {
			return true
		}
	}
	return false
}
