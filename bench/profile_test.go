// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// profile takes a CPU profile over so many seconds or, with 0, until work is
// done; work runs meanwhile.
func (a *running) profile(title string, seconds int, work func(context.Context)) string {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Duration(seconds)*time.Second)
	if seconds == 0 {
		// It has to be known beforehand how long a profile lasts.
		ctx, cancel = context.WithCancel(a.t.Context())
		seconds = 4
	}
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if work != nil {
			work(ctx)
		}
	}()
	text := a.top(title, fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds), "-cum")
	<-done
	return text
}

// heap says what is held.
func (a *running) heap(title string) string {
	a.t.Helper()
	return a.top(title, "/debug/pprof/heap?gc=1", "-sample_index=inuse_space")
}

// A line of pprof -top: flat, its share, sum, cum, its share, function.
var topLine = regexp.MustCompile(`^\s*(\S+)\s+(\S+)\s+\S+\s+(\S+)\s+(\S+)\s+(.+)$`)

const own = "github.com/coroner-dev/coroner/internal/"

// shownCosts is how many functions a table has.
const shownCosts = 12

// top is the table of a profile's largest functions: of the program's own
// parts and the libraries' entries, not of the runtime's and of what only
// calls others.
func (a *running) top(title, path string, order ...string) string {
	a.t.Helper()
	file := filepath.Join(a.t.TempDir(), "profile")
	if err := os.WriteFile(file, a.must(path), 0o600); err != nil {
		a.t.Fatal(err)
	}
	args := append(append([]string{"tool", "pprof", "-top", "-nodecount=400"}, order...), file)
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		a.t.Fatalf("go tool pprof: %v", err)
	}
	total := "nothing"
	var rows []string
	for line := range strings.Lines(string(out)) {
		if _, rest, ok := strings.Cut(line, " of "); ok && strings.HasPrefix(line, "Showing nodes") {
			total = strings.TrimSuffix(strings.TrimSpace(rest), " total")
		}
		if rest, ok := strings.CutPrefix(line, "Duration: "); ok {
			title += " (" + strings.TrimSpace(rest) + ")"
		}
		m := topLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil || !strings.HasSuffix(m[2], "%") || len(rows) == shownCosts || !telling(m[5]) {
			continue
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |", strings.ReplaceAll(m[5], "github.com/coroner-dev/coroner/", ""), m[1], m[3]+" ("+m[4]+")"))
	}
	if !strings.Contains(title, "Total samples") {
		title += " (" + total + ")"
	}
	text := "### " + title + "\n\n| function | itself | with what it calls |\n|---|---|---|\n" + strings.Join(rows, "\n")
	a.t.Log(text)
	return text
}

// telling leaves out what every Go program's profile has on top, and what only
// calls the next.
func telling(function string) bool {
	for _, p := range []string{"main.", "runtime.main", "runtime.goexit", "runtime.systemstack", "runtime.mcall", "runtime.mstart", "runtime.goroutine",
		"net/http.", "github.com/spf13/cobra", "sync.(*WaitGroup)", "runtime.gosched", "runtime.asyncPreempt", "runtime.schedule", "runtime.findRunnable",
		"runtime.park_m", "runtime.gcBgMarkWorker.",
		own + "web.", own + "agent.(*Agent).", own + "agent.(*supervisor)", own + "source/cgroup.(*Source).Run", own + "source/tracepoint.(*Source).Run",
		"github.com/prometheus/client_golang/prometheus/promhttp.", "github.com/prometheus/common/expfmt.NewEncoder", "github.com/prometheus/common/expfmt.encoderCloser",
		"github.com/prometheus/client_golang/prometheus.(*noTransactionGatherer)"} {
		if strings.HasPrefix(function, p) {
			return false
		}
	}
	return true
}
