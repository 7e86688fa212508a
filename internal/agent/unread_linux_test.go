// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
)

// socketMemory is what the kernel holds for all connections, this test's own
// ends among them.
func socketMemory(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(host.Roots{}.ProcPath("net", "sockstat"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == "TCP:" {
			pages, err := strconv.Atoi(f[len(f)-1])
			if err != nil {
				t.Fatal(err)
			}
			return pages * os.Getpagesize()
		}
	}
	t.Fatal("no TCP in sockstat")
	return 0
}

// TestServer_PipelinedAndUnread: a thousand clients that ask for the metrics 40
// times and never read take little of the kernel's memory, keep no scrape from
// its answer, also from their own address, and lose their connections.
func TestServer_PipelinedAndUnread(t *testing.T) {
	const clients = 1000
	a, base := running(t, idle(t))
	before, most := socketMemory(t), 0
	address := a.Addresses()[0].String()
	narrow := net.Dialer{Control: smallWindow}
	ask := strings.Repeat(request("/metrics", ""), 40)
	for range clients {
		c, err := narrow.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c, ask); err != nil {
			t.Fatal(err)
		}
	}
	slowest := map[string]time.Duration{}
	began := time.Now()
	for {
		for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
			asked := time.Now()
			got := scrape(t, from, base)
			took := time.Since(asked)
			slowest[from] = max(slowest[from], took)
			// In the crowd's own address it is a connection among a thousand,
			// and with the race detector that may take too long.
			if other := from != "127.0.0.1"; other && took > 4*time.Second || got != http.StatusOK && (other || !raceDetector()) {
				t.Errorf("/metrics from %s: %d after %s", from, got, took)
			}
		}
		now := socketMemory(t) - before
		most = max(most, now)
		if time.Since(began) > 5*time.Second && now < clients*8<<10 {
			break // what is left is in the ends of the clients, of which none was closed
		}
		if time.Since(began) > 25*time.Second {
			t.Errorf("%d KiB of socket memory are held for clients that do not read", now>>10)
			break
		}
		pause(t.Context(), 100*time.Millisecond)
	}
	t.Logf("%d KiB of socket memory at most, given back after %s; slowest scrapes %v", most>>10, time.Since(began), slowest)
	// Twice what the agent tells the kernel for its ends, and a page or two
	// for each of the others.
	if bound := clients * (2*sendBuffer + 2*receiveBuffer + 8<<10); most > bound {
		t.Errorf("%d KiB of socket memory, want at most %d", most>>10, bound>>10)
	}
}

// scrape asks for the metrics from an address of this machine.
func scrape(t *testing.T, from, base string) int {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return d.DialContext(ctx, network, address)
		},
	}}
	resp, err := client.Get(base + "/metrics")
	if err != nil {
		t.Error(err)
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// smallWindow makes a connection receive little.
func smallWindow(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048)
	})
	return errors.Join(err, failed)
}
