// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
)

// TestDeathText_Recovered: what told of it is in the evidence, and need not be
// a log.
func TestDeathText_Recovered(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	got := deathText(&death.Death{Time: at, Node: "n1", Recovered: true, Evidence: []death.Evidence{{Time: at, Source: death.SourceDocker, Text: "exit code 1"}}})
	if want := "2026-03-04 05:06:07.000 UTC on n1; it happened while coroner was not running\n"; !strings.Contains(got, want) || strings.Contains(got, "the log") {
		t.Errorf("no %q in\n%s", want, got)
	}
}

func TestRepeatText(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	rate := func(f float64) *float64 { return &f }
	for _, tt := range []struct {
		span    time.Duration
		perHour *float64
		want    string
	}{
		{0, nil, "3 times within 1 s"},
		{400 * time.Millisecond, nil, "3 times within 1 s"},
		{3 * time.Second, nil, "3 times in 3s"},
		{10 * time.Minute, rate(12), "3 times in 10m0s, 12 an hour"},
		{48 * time.Hour, rate(1.0 / 24), "3 times in 48h0m0s, 1.0 a day"},
	} {
		if got := repeatText(&death.Repeat{Count: 3, First: at, Last: at.Add(tt.span), PerHour: tt.perHour}); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.span, got, tt.want)
		}
	}
}
