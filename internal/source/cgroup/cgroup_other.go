// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package cgroup

import (
	"context"
	"fmt"

	"github.com/coroner-dev/coroner/internal/host"
	"github.com/coroner-dev/coroner/internal/signal"
)

// Run returns at once: only Linux has cgroups.
func (s *Source) Run(context.Context, func(signal.Signal)) error {
	return fmt.Errorf("cgroups: %w; Linux has them", host.ErrNotSupported)
}
