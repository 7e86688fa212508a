// SPDX-License-Identifier: Apache-2.0

package kmsg

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/signal"
)

// A real device that never blocks and is no log.
func TestRun_DevZero(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := New(Options{Path: "/dev/zero"}).Run(ctx, func(signal.Signal) {})
	if !errors.Is(err, errNotALog) {
		t.Errorf("got %v, want %v", err, errNotALog)
	}
}
