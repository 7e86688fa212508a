// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

// defaultAction is for Linux alone: the test load runs there.
func defaultAction(int) {}
