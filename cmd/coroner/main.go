// SPDX-License-Identifier: Apache-2.0

// Command coroner says why a container died.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run())
}

// run is main with a result: 0 answered, 1 could not answer, 2 wrong usage.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot(os.Args[0])
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var wanted exitCode
	if errors.As(err, &wanted) {
		return int(wanted)
	}
	complain(root.ErrOrStderr(), err)
	var wrong usageError
	if errors.As(err, &wrong) || !reachedCommand(root) {
		return 2
	}
	return 1
}
