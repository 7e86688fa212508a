// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// program writes the head of a program, which is all that is looked at.
func program(t *testing.T, machine elf.Machine, part elf.ProgType, text string) string {
	t.Helper()
	var b bytes.Buffer
	h := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	for _, part := range []any{h, elf.Prog64{Type: uint32(part)}, []byte(text)} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "program")
	put(t, path, b.String())
	return path
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// made runs the command, and gives the file that it wrote and what it said.
func made(t *testing.T, binary string, args ...string) (path, said string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "image.tar")
	var out strings.Builder
	if err := run(append([]string{"-binary", binary, "-to", path}, args...), &out); err != nil {
		t.Fatal(err)
	}
	return path, strings.TrimPrefix(out.String(), path)
}

func TestRun_SameBytes(t *testing.T) {
	binary := program(t, elf.EM_X86_64, elf.PT_LOAD, "one")
	args := []string{"-version", "v1", "-revision", "abc", "-created", "1700000000"}
	first, saidFirst := made(t, binary, args...)
	later := time.Now().Add(time.Hour) // when a file was written is no part of it
	if err := os.Chtimes(binary, later, later); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(binary, 0o700); err != nil {
		t.Fatal(err)
	}
	second, saidSecond := made(t, binary, args...)
	if saidFirst != saidSecond || text(t, first) != text(t, second) {
		t.Errorf("two images of one program differ: %s and %s", saidFirst, saidSecond)
	}
	if _, other := made(t, binary, "-version", "v2", "-revision", "abc", "-created", "1700000000"); other == saidFirst {
		t.Errorf("the digest does not tell a version: %s", other)
	}
	if _, other := made(t, program(t, elf.EM_X86_64, elf.PT_LOAD, "two"), args...); other == saidFirst {
		t.Errorf("the digest does not tell a program: %s", other)
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRun_Content(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		t.Run(arch, func(t *testing.T) {
			binary := program(t, machine, elf.PT_LOAD, "text")
			path, _ := made(t, binary, "-version", "v1.2.3", "-revision", "abc", "-created", "1700000000")
			img, err := tarball.ImageFromPath(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			c, err := img.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			at := time.Unix(1700000000, 0).UTC()
			if c.OS != "linux" || c.Architecture != arch || !c.Created.Equal(at) {
				t.Errorf("%s/%s of %v", c.OS, c.Architecture, c.Created)
			}
			if diff := cmp.Diff([]string{"coroner", "agent"}, append(c.Config.Entrypoint, c.Config.Cmd...)); diff != "" {
				t.Error(diff)
			}
			for label, want := range map[string]string{
				"version": "v1.2.3", "revision": "abc", "created": "2023-11-14T22:13:20Z", "licenses": "Apache-2.0", "title": "coroner",
			} {
				if got := c.Config.Labels["org.opencontainers.image."+label]; got != want {
					t.Errorf("label %s: %q, want %q", label, got, want)
				}
			}
			want := map[string]string{
				"usr/": "", "usr/local/": "", "usr/local/bin/": "", "var/": "", "var/lib/": "", "var/lib/coroner/": "",
				"usr/local/bin/coroner": text(t, binary),
			}
			if diff := cmp.Diff(want, content(t, img, at)); diff != "" {
				t.Errorf("in the image (-want +got):\n%.2000s", diff)
			}
		})
	}
}

// content lists the image's files, all of user 0 and of one time.
func content(t *testing.T, img v1.Image, at time.Time) map[string]string {
	t.Helper()
	r := mutate.Extract(img)
	defer r.Close()
	out := map[string]string{}
	for files := tar.NewReader(r); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(at) {
			t.Errorf("%s of %d:%d, %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		name := h.Name
		if h.Typeflag == tar.TypeDir && !strings.HasSuffix(name, "/") {
			name += "/"
		}
		out[name] = string(b)
	}
}

func TestRun_Refuses(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "no-program"), "#!/bin/sh\n")
	for name, tt := range map[string]struct{ binary, tag, says string }{
		"no program":    {filepath.Join(dir, "no-program"), "coroner:latest", "read as ELF"},
		"no file":       {filepath.Join(dir, "none"), "coroner:latest", "no such file"},
		"another CPU":   {program(t, elf.EM_RISCV, elf.PT_LOAD, ""), "coroner:latest", "neither amd64 nor arm64"},
		"not static":    {program(t, elf.EM_X86_64, elf.PT_INTERP, ""), "coroner:latest", errDynamic.Error()},
		"a name of air": {program(t, elf.EM_X86_64, elf.PT_LOAD, ""), "Not A Name", "-tag"},
	} {
		t.Run(name, func(t *testing.T) {
			to := filepath.Join(dir, "out.tar")
			err := run([]string{"-binary", tt.binary, "-to", to, "-tag", tt.tag}, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
			if _, err := os.Stat(to); err == nil {
				t.Error("it wrote a file")
			}
		})
	}
}
