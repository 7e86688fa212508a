// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package tracepoint

import (
	"fmt"

	"github.com/coroner-dev/coroner/internal/host"
)

func openBPF(Options) (watcher, error) {
	return nil, fmt.Errorf("kernel programs: %w; Linux has them", host.ErrNotSupported)
}

func openTracefs(Options, error) (watcher, error) {
	return nil, fmt.Errorf("tracefs: %w; Linux has it", host.ErrNotSupported)
}
