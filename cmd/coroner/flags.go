// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"strconv"

	"github.com/prometheus/common/promslog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/coroner-dev/coroner/internal/host"
)

// logFlags add --log.level and --log.format, as Prometheus' programs have them.
func logFlags(c *cobra.Command) func() *slog.Logger {
	cfg := &promslog.Config{Level: promslog.NewLevel(), Format: promslog.NewFormat(), Style: promslog.GoKitStyle, Writer: c.ErrOrStderr()}
	_ = cfg.Level.Set("info")
	_ = cfg.Format.Set("logfmt")
	c.Flags().Var(named{cfg.Level, "level"}, "log.level", "only log messages of this severity or above: debug, info, warn, error")
	c.Flags().Var(named{cfg.Format, "format"}, "log.format", "form of the log: logfmt, json")
	return func() *slog.Logger { return promslog.New(cfg) }
}

// named gives a flag value of another library the method that pflag wants.
type named struct {
	value interface {
		Set(string) error
		String() string
	}
	kind string
}

func (n named) Set(s string) error { return n.value.Set(s) }
func (n named) String() string     { return n.value.String() }
func (n named) Type() string       { return n.kind }

// pathFlags add --path.*: where the host's files are.
func pathFlags(f *pflag.FlagSet, r *host.Roots) {
	f.StringVar(&r.Proc, "path.procfs", r.Proc, "where the host's procfs is mounted (default /proc)")
	f.StringVar(&r.Sys, "path.sysfs", r.Sys, "where the host's sysfs is mounted (default /sys)")
	f.StringVar(&r.Cgroup, "path.cgroupfs", r.Cgroup, "where the host's control groups are mounted (default fs/cgroup below sysfs)")
	f.StringVar(&r.Root, "path.rootfs", r.Root, "where the host's root directory is seen (default /)")
}

// switchFlag adds --NAME and --no-NAME.
func switchFlag(f *pflag.FlagSet, on *bool, name, usage string) {
	f.BoolVar(on, name, *on, usage)
	f.Var((*offValue)(on), "no-"+name, "switch "+name+" off")
	f.Lookup("no-" + name).NoOptDefVal = "true"
}

// offValue is a flag that switches another off.
type offValue bool

func (v *offValue) Type() string   { return "bool" }
func (v *offValue) String() string { return "false" }

// Set takes true for off.
func (v *offValue) Set(s string) error {
	off, err := strconv.ParseBool(s)
	if err != nil {
		return err
	}
	*v = offValue(!off)
	return nil
}
