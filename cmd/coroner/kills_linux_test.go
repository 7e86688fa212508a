// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/coroner-dev/coroner/internal/host"

// canKill tells whether the demonstration can make a real kill here.
func canKill() error {
	l, err := prepareLoad(host.Roots{})
	if err != nil {
		return err
	}
	l.cleanUp(func(string, ...any) {})
	return nil
}
