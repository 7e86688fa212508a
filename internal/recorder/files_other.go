// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package recorder

import (
	"fmt"

	"github.com/coroner-dev/coroner/internal/host"
)

type files struct{}

type handle struct{ id uint64 }

func openFiles(host.Roots) (*files, error) {
	return nil, fmt.Errorf("cgroups: %w; Linux has them", host.ErrNotSupported)
}

func (*files) open(string, uint64) (handle, bool, error) {
	return handle{}, false, host.ErrNotSupported
}
func (*files) close(*handle, bool)               {}
func (*files) read(handle, *reading, bool) error { return host.ErrNotSupported }
func (*files) readSlow(string, *slow)            {}

func (*files) keepNone() {}

func (*files) listen(func(int)) error      { return host.ErrNotSupported }
func (*files) listening() bool             { return false }
func (*files) deaf()                       {}
func (*files) trigger(string) (int, error) { return -1, host.ErrNotSupported }
func (*files) untrigger(int)               {}

func gone(error) bool  { return false }
func ended(error) bool { return false }
