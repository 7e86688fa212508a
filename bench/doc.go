// SPDX-License-Identifier: Apache-2.0

// Package bench measures coroner against its goals and its peers, and writes
// docs/benchmarks.md: "make bench" runs it. It is a module of its own, so that
// the product never depends on the peers. The agent that it measures is
// bin/coroner itself, and the kills are real.
//
// The rows are in rows.go. What notes.md says about a row, why it is missed
// and what would reach it, is put below the tables and so outlives a rewriting.
package bench
