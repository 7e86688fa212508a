// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"fmt"

	"github.com/coroner-dev/coroner/internal/host"
)

const demoLimit = 32 << 20

// load stands for what only Linux can do.
type load struct{ cgroup string }

func prepareLoad(host.Roots) (*load, error) {
	return nil, fmt.Errorf("%w: only Linux has control groups", errNoRights)
}

func (*load) pid() int                     { return 0 }
func (*load) release() error               { return errNoRights }
func (*load) cleanUp(func(string, ...any)) {}
