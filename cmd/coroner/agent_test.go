// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/agent"
)

func TestServiceOptions(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want agent.ServiceOptions
	}{
		{nil, agent.ServiceOptions{}},
		{map[string]string{"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "2000000"}, agent.ServiceOptions{NotifySocket: "@n", Watchdog: 2 * time.Second}},
		{map[string]string{"WATCHDOG_USEC": "9223372036854775807"}, agent.ServiceOptions{}},
		{map[string]string{"WATCHDOG_USEC": "-1"}, agent.ServiceOptions{}},
		{map[string]string{"WATCHDOG_USEC": "soon"}, agent.ServiceOptions{}},
	} {
		lookup := func(k string) (string, bool) { v, ok := tt.env[k]; return v, ok }
		if got := serviceOptions(lookup); got != tt.want {
			t.Errorf("%v: %+v, want %+v", tt.env, got, tt.want)
		}
	}
}
