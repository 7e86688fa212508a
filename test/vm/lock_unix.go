// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lock waits until nobody else fetches the same: machines start at the same
// time, and apt-get refuses to run twice. The lock is a file beside what.
func lock(ctx context.Context, what string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(what), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(what+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // which ends the lock
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-again.C:
			continue
		}
		break
	}
	_ = f.Close()
	return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
}
