// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package host

// OOMDAttributes reads nothing: there are no cgroups here.
func (Roots) OOMDAttributes(string) (ooms, killed *int64) { return nil, nil }
