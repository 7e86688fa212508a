// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/common/model"

	"github.com/coroner-dev/coroner/internal/host"
)

// limitMemory makes Go's collector keep below the limit of the agent's own
// cgroup, so that a storm makes the agent slower and not its own victim.
// Somebody who sets GOMEMLIMIT knows better. The agent's own files are looked
// at, not those of --path.*: these may be another's.
func limitMemory(log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	own, err := host.Roots{}.OwnMemoryLimit()
	if err != nil {
		log.Debug("own memory limit is not known", "err", err)
		return
	}
	if own.Bytes == 0 {
		return
	}
	limit := goLimit(own.Bytes)
	debug.SetMemoryLimit(limit)
	log.Info("memory limit of the cgroup is kept", "path", own.File, "limit_bytes", own.Bytes, "go_limit_bytes", limit)
}

// gcPercent is a third of Go's own: what is held is little, so that a
// collection takes some milliseconds, and what waits for one is memory of the
// node's.
const gcPercent = 33

// frugal has Go's collector hold less, and, where nobody can ask for profiles,
// count no allocations for them. Somebody who sets GOGC knows better. Scrapes do
// not look for names of metrics that an old Prometheus cannot take: there are none,
// and looking takes a fifth of the time.
func frugal(profiles bool) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if !profiles {
		runtime.MemProfileRate = 0
	}
	model.NameEscapingScheme = model.NoEscaping
}

// lockText keeps the program's own instructions in memory, where it may: the
// agent has to run just when the machine has no memory left.
func lockText(log *slog.Logger) {
	n, err := host.LockText()
	log.Debug("own text is kept in memory", "limit_bytes", n, "err", err)
}

// goLimit leaves a fifth for what Go does not count: the page cache of the
// history, the kernel's maps and ring, the program's own text.
func goLimit(cgroup int64) int64 {
	if cgroup > math.MaxInt64/4 {
		return math.MaxInt64
	}
	return cgroup / 5 * 4
}
