// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// initPackage is the machine's first process.
const initPackage = "github.com/coroner-dev/coroner/test/vm/init"

// plan is what the machine's first process must know (init/main_linux_amd64.go).
type plan struct {
	Cgroup int      `json:"cgroup"`
	Args   []string `json:"args"`
	Env    []string `json:"env"`
	// Modules make the disk visible that holds systemd; none: no disk.
	Modules []string `json:"modules"`
}

// writeInitrd writes an initramfs (the kernel's buffer-format.rst, "newc",
// not compressed) with the first process, its plan, the binary and the files.
func (m *machine) writeInitrd(ctx context.Context, to string, modules []string) (err error) {
	init := to + ".init"
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", init, initPackage)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=-buildvcs=false")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("go build %s: %w", initPackage, err)
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()

	pl := plan{Cgroup: m.cgroup, Args: append([]string{"/test/test.bin"}, m.command[1:]...), Env: m.guestEnv()}
	for _, mod := range modules {
		pl.Modules = append(pl.Modules, filepath.Base(mod))
	}
	p, err := json.Marshal(pl)
	if err != nil {
		return err
	}
	w := &cpio{w: bufio.NewWriter(f), made: map[string]bool{"/": true}}
	w.bytes("/plan.json", 0o644, p)
	w.file("/init", init)
	w.file("/test/test.bin", m.command[0])
	for _, mod := range modules {
		w.file("/modules/"+filepath.Base(mod), mod)
	}
	for _, pair := range m.files {
		src, dst, ok := strings.Cut(pair, ":")
		if !ok {
			dst = "/" + filepath.Base(src)
		}
		w.tree(dst, src)
	}
	return w.close()
}

func (m *machine) guestEnv() []string {
	env := []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin:/test", "HOME=/tmp", "CORONER_VM=1"}
	if v, ok := os.LookupEnv("CORONER_CI"); ok {
		env = append(env, "CORONER_CI="+v)
	}
	return append(env, m.env...)
}

// cpio writes an archive; the first error stays.
type cpio struct {
	w    *bufio.Writer
	made map[string]bool
	ino  int
	err  error
}

// tree puts in a file, or a folder with all that is in it.
func (c *cpio) tree(dst, src string) {
	if c.err != nil {
		return
	}
	c.err = filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		c.file(path.Join(dst, filepath.ToSlash(rel)), p)
		return c.err
	})
}

func (c *cpio) file(dst, src string) {
	f, err := os.Open(src)
	if err != nil {
		c.err = errors.Join(c.err, err)
		return
	}
	defer func() { _ = f.Close() }() // read only
	st, err := f.Stat()
	if err != nil {
		c.err = errors.Join(c.err, err)
		return
	}
	c.entry(dst, 0o100000|uint32(st.Mode().Perm()), st.Size(), f)
}

func (c *cpio) bytes(dst string, mode uint32, b []byte) {
	c.entry(dst, 0o100000|mode, int64(len(b)), strings.NewReader(string(b)))
}

func (c *cpio) entry(dst string, mode uint32, size int64, r io.Reader) {
	if parent := path.Dir(path.Join("/", dst)); !c.made[parent] {
		c.made[parent] = true
		c.entry(parent, 0o040755, 0, strings.NewReader(""))
	}
	if c.err != nil {
		return
	}
	name := strings.TrimPrefix(path.Join("/", dst), "/") + "\x00"
	c.ino++
	_, err := fmt.Fprintf(c.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s%s",
		c.ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name), 0, name, pad(110+len(name)))
	if err == nil {
		_, err = io.CopyN(c.w, r, size)
	}
	if err == nil {
		_, err = c.w.WriteString(pad(int(size)))
	}
	c.err = err
}

func (c *cpio) close() error {
	c.made["/"] = true
	c.entry("TRAILER!!!", 0, 0, strings.NewReader(""))
	if c.err != nil {
		return c.err
	}
	return c.w.Flush()
}

// pad fills up to a multiple of four bytes.
func pad(n int) string { return "\x00\x00\x00"[:(4-n%4)%4] }
