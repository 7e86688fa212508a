// SPDX-License-Identifier: Apache-2.0

//go:build linux

package engines

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Layer is a layer of an image: busybox, and these programs at its root.
func Layer(t *testing.T, programs ...string) []byte {
	t.Helper()
	a := newArchive(t)
	add := func(name, path string) {
		program, err := os.ReadFile(path)
		Must(t, err)
		a.add(tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeReg}, program)
	}
	add("bin/busybox", busybox)
	for _, path := range programs {
		add(filepath.Base(path), path)
	}
	for _, name := range []string{"sh", "sleep", "true"} {
		a.add(tar.Header{Name: "bin/" + name, Linkname: "busybox", Typeflag: tar.TypeSymlink}, nil)
	}
	// A script's process has the script's name: a pod's sandbox is known by it.
	a.add(tar.Header{Name: "bin/pause", Mode: 0o755, Typeflag: tar.TypeReg}, []byte("#!/bin/sh\nwhile :; do sleep 3600; done\n"))
	for _, name := range []string{"proc", "sys", "dev", "run"} {
		a.add(tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir}, nil)
	}
	return a.bytes()
}

// Image is what docker save makes of an image of busybox alone. config is its
// config's, as Cmd and Labels.
func Image(t *testing.T, config map[string]any, names ...string) []byte {
	t.Helper()
	layer := Layer(t)
	text, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	Must(t, err)
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": names, "Layers": []string{"layer.tar"}}})
	Must(t, err)
	a := newArchive(t)
	for _, f := range []struct {
		name string
		text []byte
	}{{"manifest.json", manifest}, {"config.json", text}, {"layer.tar", layer}} {
		a.add(tar.Header{Name: f.name, Mode: 0o644, Typeflag: tar.TypeReg}, f.text)
	}
	return a.bytes()
}

// archive is a tar in memory.
type archive struct {
	t   *testing.T
	out bytes.Buffer
	w   *tar.Writer
}

func newArchive(t *testing.T) *archive {
	a := &archive{t: t}
	a.w = tar.NewWriter(&a.out)
	return a
}

func (a *archive) add(h tar.Header, content []byte) {
	a.t.Helper()
	h.Size = int64(len(content))
	Must(a.t, a.w.WriteHeader(&h))
	_, err := a.w.Write(content)
	Must(a.t, err)
}

func (a *archive) bytes() []byte {
	Must(a.t, a.w.Close())
	return a.out.Bytes()
}
