// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// machines runs the guests, as many at once as there are processors: the
// emulation of each takes one.
func (r *runner) machines(ctx context.Context) error {
	if why := noMachines(); why != "" {
		r.tally.leave(wholePart+"virtual machines", why)
		return nil
	}
	dir, err := os.MkdirTemp("", "coroner-test-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	rows := slices.DeleteFunc(guests(r.packages), func(g guest) bool {
		why := lacking(g.needs...)
		if !exists(g.pkg) {
			why = "no such folder"
		}
		if why != "" {
			r.tally.leave(wholePart+clean(g.pkg)+" in a virtual machine", why)
		}
		return why != ""
	})
	built := binaries{dir}
	if err := built.build(ctx, rows); err != nil {
		return err
	}
	r.tally.title(fmt.Sprintf("virtual machines, %d at once", r.atOnce))
	r.tally.together(r.atOnce, rows, func(t *tally, g guest) { r.inGuest(ctx, t, g, built) })
	return nil
}

// together runs n guests at once. What one says is told at its end, whole.
func (t *tally) together(n int, rows []guest, run func(*tally, guest)) {
	type part struct {
		tally *tally
		said  *bytes.Buffer
	}
	ended := make(chan part)
	for running := 0; len(rows) > 0 || running > 0; {
		if len(rows) > 0 && running < max(n, 1) {
			g := rows[0]
			rows = rows[1:]
			running++
			fmt.Fprintf(t.out, "run  %s\n", g)
			go func() {
				said := new(bytes.Buffer)
				p := part{newTally(said), said}
				run(p.tally, g)
				ended <- p
			}()
			continue
		}
		p := <-ended
		running--
		_, _ = p.said.WriteTo(t.out)
		t.add(p.tally)
	}
}

// inGuest runs a guest and lets go tool test2json read what it prints.
func (r *runner) inGuest(ctx context.Context, t *tally, g guest, built binaries) {
	var said bytes.Buffer
	guest := exec.CommandContext(ctx, built.vm(), r.vmArgs(g, built)...)
	guest.Stderr = &said
	// Killed, it would leave its machine behind.
	guest.Cancel = func() error { return guest.Process.Signal(syscall.SIGTERM) }
	guest.WaitDelay = 10 * time.Second
	if err := t.followGuest(guest, g); err != nil {
		t.unfinished()
		defer t.broken(g.String(), err)
	}
	_, _ = said.WriteTo(t.out)
}

func (t *tally) followGuest(guest *exec.Cmd, g guest) error {
	out, err := guest.StdoutPipe()
	if err != nil {
		return err
	}
	if err := guest.Start(); err != nil {
		return err
	}
	var said bytes.Buffer
	name := module + clean(g.pkg)
	reader := exec.Command("go", "tool", "test2json", "-t", "-p", name)
	reader.Stdin, reader.Stderr = out, &said
	err = t.follow(reader, name, "on "+g.name)
	_, _ = said.WriteTo(t.out)
	if ended := guest.Wait(); len(t.failed) == 0 {
		err = errors.Join(err, ended) // nothing told why
	}
	return err
}

// vmArgs is what test/vm is told.
func (r *runner) vmArgs(g guest, built binaries) []string {
	limit := "timeout=" + r.timeout.String()
	args := append(slices.Clone(g.flags), "-"+limit)
	if data := filepath.Join(g.pkg, "testdata"); exists(data) {
		args = append(args, "-file="+data+":/test/testdata")
	}
	if g.coroner {
		args = append(args, "-file="+built.coroner()+":/test/coroner")
	}
	for _, src := range g.c {
		args = append(args, "-file="+built.c(src)+":/test/"+filepath.Base(built.c(src)))
	}
	for _, f := range g.files {
		args = append(args, "-file="+f)
	}
	args = append(args, built.tests(g.pkg), "-test.v=test2json", "-test."+limit)
	return append(append(args, g.args...), r.args...)
}

// binaries is the folder of what the guests run.
type binaries struct{ dir string }

func (b binaries) vm() string      { return filepath.Join(b.dir, "vm") }
func (b binaries) coroner() string { return filepath.Join(b.dir, "coroner") }
func (b binaries) c(src string) string {
	return filepath.Join(b.dir, strings.TrimSuffix(filepath.Base(src), ".c"))
}
func (b binaries) tests(pkg string) string {
	return filepath.Join(b.dir, strings.ReplaceAll(clean(pkg), "/", "-")+".test")
}

func (b binaries) build(ctx context.Context, rows []guest) error {
	if err := build(ctx, "build", "-o", b.vm(), "./test/vm"); err != nil {
		return err
	}
	for _, g := range rows {
		if g.coroner && !exists(b.coroner()) {
			if err := build(ctx, "build", "-trimpath", "-ldflags=-s -w", "-o", b.coroner(), "./cmd/coroner"); err != nil {
				return err
			}
		}
		for _, src := range g.c {
			c := exec.CommandContext(ctx, "cc", "-static", "-O1", "-o", b.c(src), filepath.Join(g.pkg, src))
			if out, err := c.CombinedOutput(); err != nil {
				return fmt.Errorf("cc %s: %w: %s", src, err, out)
			}
		}
		if bin := b.tests(g.pkg); !exists(bin) {
			if err := build(ctx, "test", "-c", "-o", bin, g.pkg); err != nil {
				return err
			}
		}
	}
	return nil
}

func noMachines() string {
	switch {
	case runtime.GOARCH != "amd64":
		return "only written for amd64"
	case lacking("apt-get", "dpkg") != "":
		return "the kernels come from Debian, with apt-get and dpkg"
	}
	return lacking("qemu-system-x86_64")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// clean is a package's folder without the "./".
func clean(pkg string) string { return path.Clean(filepath.ToSlash(pkg)) }

// build runs go for a static Linux binary.
func build(ctx context.Context, args ...string) error {
	c := exec.CommandContext(ctx, "go", args...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("go %s %s: %w", args[0], args[len(args)-1], err)
	}
	return nil
}
