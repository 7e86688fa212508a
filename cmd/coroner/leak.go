// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// leakOptions are the flags of leak.
type leakOptions struct {
	block, max bytesValue
	interval   time.Duration
	touch      float64
	children   int
	survive    bool
	wait       bool
	exitCode   int
	signal     int
}

func newLeak() *cobra.Command {
	o := leakOptions{block: 1 << 20, touch: 1}
	c := &cobra.Command{
		Use:   "leak",
		Short: "Test load: allocate and touch memory in blocks",
		Long: `leak allocates memory in blocks and touches it, until --max or until something ends
it. Run it in a cgroup with a limit only: it will take all memory that it can get.`,
		Example: `  coroner leak --block 1M --interval 10ms        grow by 100 MiB a second
  coroner leak --max 64M --survive               grow to 64 MiB, then hold still
  coroner leak --children 3 --survive            three children grow; this process outlives them
  coroner leak --max 1M --exit-code 3            grow a little, then leave with code 3`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return leak(c.Context(), o) },
	}
	f := c.Flags()
	f.Var(&o.block, "block", "size of one allocation")
	f.Var(&o.max, "max", "stop growing at this size; 0: never")
	f.DurationVar(&o.interval, "interval", 0, "pause after each block")
	f.Float64Var(&o.touch, "touch", 1, "fraction of each block that is written to, 0 to 1")
	f.IntVar(&o.children, "children", 0, "let so many child processes grow instead of this one")
	f.BoolVar(&o.survive, "survive", false, "live on at --max, or when the children are dead")
	f.IntVar(&o.exitCode, "exit-code", 0, "exit code at the end")
	f.BoolVar(&o.wait, "wait", false, "begin when a line, or the end, comes on standard input")
	f.IntVar(&o.signal, "signal", 0, "at the end, send this signal to itself")
	return c
}

func leak(ctx context.Context, o leakOptions) error {
	if err := o.check(); err != nil {
		return usageError{withHint(err, "coroner leak --help")}
	}
	if o.wait {
		_, _ = os.Stdin.Read(make([]byte, 1)) // the end of it will do too
	}
	if o.children > 0 {
		if err := leakChildren(ctx, o); err != nil {
			return err
		}
	} else if !grow(ctx, o) {
		return nil
	}
	if o.survive {
		<-ctx.Done()
	}
	if o.signal != 0 {
		signal.Reset()
		defaultAction(o.signal) // die of it, as a program would that does not handle it
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			return fmt.Errorf("find own process: %w", err)
		}
		if err := self.Signal(syscall.Signal(o.signal)); err != nil {
			return fmt.Errorf("send signal %d to itself: %w", o.signal, err)
		}
		<-ctx.Done()
	}
	if o.exitCode != 0 {
		return exitCode(o.exitCode)
	}
	return nil
}

func (o leakOptions) check() error {
	switch {
	case !(o.touch >= 0 && o.touch <= 1): // NaN is neither
		return errors.New("--touch takes 0 to 1")
	case o.block <= 0:
		return errors.New("--block takes a size above 0")
	case o.children < 0:
		return errors.New("--children takes 0 or more")
	case o.interval < 0:
		return errors.New("--interval takes 0 or more")
	case o.exitCode < 0 || o.exitCode > 255:
		return errors.New("--exit-code takes 0 to 255")
	case o.signal < 0 || o.signal > 64:
		return errors.New("--signal takes 1 to 64")
	}
	return nil
}

// grow allocates until max; false means that ctx ended first.
func grow(ctx context.Context, o leakOptions) bool {
	var held [][]byte
	page := os.Getpagesize()
	for size := bytesValue(0); o.max == 0 || size+o.block <= o.max; size += o.block {
		block := make([]byte, o.block)
		for i := 0; i < int(float64(o.block)*o.touch); i += page {
			block[i] = 1
		}
		held = append(held, block)
		if o.interval == 0 {
			if ctx.Err() != nil {
				return false
			}
			continue
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(o.interval):
		}
	}
	if o.survive {
		<-ctx.Done()
	}
	_ = held[:0] // what was touched stays reachable until here
	return true
}

// leakChildren runs this program again as each child, and waits for their ends.
func leakChildren(ctx context.Context, o leakOptions) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	var running []*exec.Cmd
	for range o.children {
		args := []string{"leak", "--block", o.block.String(), "--max", o.max.String(), "--interval", o.interval.String(),
			"--touch", strconv.FormatFloat(o.touch, 'f', -1, 64)}
		child := exec.CommandContext(ctx, self, args...)
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			return fmt.Errorf("start child: %w", err)
		}
		running = append(running, child)
	}
	for _, child := range running {
		_ = child.Wait() // it is meant to be killed
	}
	return nil
}

// exitCode asks run to leave with this code, without a word.
type exitCode int

func (e exitCode) Error() string { return "exit code " + strconv.Itoa(int(e)) }

// bytesValue is a size on the command line: 512, 64K, 1M, 2G; a trailing
// "i", "B" or "iB" is allowed, and the unit is always of 1024.
type bytesValue int64

func (v *bytesValue) Type() string   { return "size" }
func (v *bytesValue) String() string { return strconv.FormatInt(int64(*v), 10) }

// Set reads a size.
func (v *bytesValue) Set(s string) error {
	n, err := parseBytes(s)
	if err != nil {
		return err
	}
	*v = bytesValue(n)
	return nil
}

func parseBytes(s string) (int64, error) {
	digits := 0
	for digits < len(s) && s[digits] >= '0' && s[digits] <= '9' {
		digits++
	}
	n, err := strconv.ParseInt(s[:digits], 10, 64)
	shift, ok := map[string]uint{
		"": 0, "B": 0,
		"K": 10, "KB": 10, "Ki": 10, "KiB": 10,
		"M": 20, "MB": 20, "Mi": 20, "MiB": 20,
		"G": 30, "GB": 30, "Gi": 30, "GiB": 30,
	}[s[digits:]]
	if err != nil || !ok || n<<shift>>shift != n {
		return 0, errors.New("not a size such as 512, 64K, 1M or 2G")
	}
	return n << shift, nil
}
