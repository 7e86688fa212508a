// SPDX-License-Identifier: Apache-2.0

package oomtest

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// child is a load as its parent holds it.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
}

// startChild starts this binary again as a load, which then waits.
func startChild(l Load, lifeline *os.File) (*child, error) {
	spec, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = []string{loadVariable + "=" + string(spec)}
	c.cmd.ExtraFiles = []*os.File{lifeline}
	c.cmd.Stderr = os.Stderr
	if l.NewPIDNS {
		c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	return c, nil
}

// place tells the load that it is where it belongs, and waits for it to be
// ready with all its children.
func (c *child) place() error {
	if err := say(c.in); err != nil {
		return err
	}
	if err := await(c.out); err != nil {
		return fmt.Errorf("load not ready: %w", err)
	}
	return nil
}

// release lets the load take memory.
func (c *child) release() error { return say(c.in) }

func say(w io.Writer) error {
	_, err := w.Write([]byte{'.'})
	return err
}

func await(r io.Reader) error {
	_, err := io.ReadFull(r, make([]byte, 1))
	return err
}
