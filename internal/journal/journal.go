// SPDX-License-Identifier: Apache-2.0

// Package journal looks up what a unit of systemd wrote to the journal a moment
// ago. It starts no program and needs no library: it reads the end of the files
// that journald writes.
package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coroner-dev/coroner/internal/host"
	parse "github.com/coroner-dev/coroner/internal/parse/journal"
	"github.com/coroner-dev/coroner/internal/signal"
)

// The bounds of what is read and told.
const (
	maxFiles   = 8
	maxEntries = 4096 // of one file, from its end
	maxLines   = 64
)

// Ask is what is wanted of the journal.
type Ask struct {
	// Units are whose lines, Since and Until from when, BootID of which boot.
	Units        []string
	Since, Until time.Time
	BootID       string
}

var (
	// ErrNone is for a machine without a journal.
	ErrNone       = errors.New("no journal at /var/log/journal or /run/log/journal")
	errNotRegular = errors.New("not a regular file")
)

// Lines gives the lines, oldest first. Those of an entry that is packed are not
// among them.
func Lines(roots host.Roots, a Ask) ([]signal.JournalLine, error) {
	var files []string
	for _, dir := range []string{"var/log/journal", "run/log/journal"} {
		found, err := filepath.Glob(roots.RootPath(dir, "*", "system.journal"))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		return nil, ErrNone
	}
	var out []signal.JournalLine
	var failed error
	for _, path := range files[:min(len(files), maxFiles)] {
		lines, err := linesOf(path, a)
		out, failed = append(out, lines...), errors.Join(failed, err)
	}
	slices.SortStableFunc(out, func(a, b signal.JournalLine) int { return a.Time.Compare(b.Time) })
	return out[max(0, len(out)-maxLines):], failed
}

// linesOf reads one file.
func linesOf(path string, a Ask) (_ []signal.JournalLine, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: %w", path, errNotRegular)
	}
	j, err := parse.Open(f, "MESSAGE", "_SYSTEMD_UNIT", "_PID")
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var out []signal.JournalLine
	n := 0
	for e, err := range j.Back() {
		if err != nil {
			return out, fmt.Errorf("read %s: %w", path, err)
		}
		if n++; n > maxEntries || len(out) == maxLines || e.Time.Before(a.Since) {
			break
		}
		unit := e.Fields["_SYSTEMD_UNIT"]
		if e.Time.After(a.Until) || !slices.Contains(a.Units, unit) || e.BootID != strings.ReplaceAll(a.BootID, "-", "") {
			continue
		}
		pid, _ := strconv.Atoi(e.Fields["_PID"])
		out = append(out, signal.JournalLine{Time: e.Time, Unit: unit, PID: pid, Text: e.Fields["MESSAGE"]})
	}
	return out, nil
}
