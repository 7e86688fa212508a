// SPDX-License-Identifier: Apache-2.0

// Package archtest holds the tests that keep the house rules: which package
// may import which (docs/architecture.md), and what no file may contain. It
// reads the source with go/parser and has no code of its own.
package archtest
