// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"context"
	"time"
)

// Pings has an engine pinged over and over, so that one that hangs is left.
// Each answer is one to pong where that is waited for; an error is sent to
// failed, and ends it, as ctx does.
func Pings(ctx context.Context, every time.Duration, ping func(context.Context) error, pong chan<- struct{}, failed chan<- error) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := ping(ctx); err != nil {
			failed <- err
			return
		}
		select {
		case pong <- struct{}{}:
		default:
		}
	}
}
