// SPDX-License-Identifier: Apache-2.0

// Package inquest turns signals into deaths.
package inquest

import (
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Options set up an Inquest.
type Options struct {
	Node   string
	BootID string
	// Settle is how long a case stays open for late evidence.
	Settle time.Duration
	// TombstoneTTL is how long a removed cgroup keeps its name.
	TombstoneTTL time.Duration
}

// Inquest owns all open cases. It does no I/O and reads no clock.
type Inquest struct{}

// New returns an Inquest without cases.
func New(Options) *Inquest { return &Inquest{} }

// Feed takes one signal and returns the deaths that it made or amended.
func (q *Inquest) Feed(signal.Signal) []death.Death { return nil }

// Tick says that it is now so late; it returns the deaths that this decides.
func (q *Inquest) Tick(now time.Time) []death.Death { return nil }

// Close settles everything, for a file that has come to its end.
func (q *Inquest) Close() []death.Death { return nil }

// Restore makes deaths that were given out earlier known, so that late or
// repeated evidence amends them and doubles nothing.
func (q *Inquest) Restore([]death.Death) {}
