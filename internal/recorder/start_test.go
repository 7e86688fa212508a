// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"context"
	"testing"
)

// start runs something until stop is called.
func start(t testing.TB, what func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- what(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// run runs something until the test ends.
func run(t testing.TB, what func(context.Context) error) {
	t.Helper()
	t.Cleanup(start(t, what))
}
