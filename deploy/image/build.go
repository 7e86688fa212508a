// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// state is where the agent keeps its history: what outlives a container.
const state = "var/lib/coroner"

// words are what an image says of itself.
type words struct {
	version, revision, arch string
	created                 time.Time
}

var errDynamic = errors.New("not static: build it with CGO_ENABLED=0")

// architecture is the program's own word for which machines it is.
func architecture(program []byte) (string, error) {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return "", fmt.Errorf("read as ELF: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", errDynamic
		}
	}
	switch f.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	}
	return "", fmt.Errorf("machine %s is neither amd64 nor arm64", f.Machine)
}

// build makes the image: one layer over nothing.
func build(program []byte, w words) (v1.Image, error) {
	layer, err := files(program, w.created)
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	at := v1.Time{Time: w.created}
	img, err := mutate.Append(empty.Image, mutate.Addendum{Layer: l, History: v1.History{Created: at, CreatedBy: "make image"}})
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Created, c.Config = "linux", w.arch, at, config(w)
	return mutate.ConfigFile(img, c)
}

// config is what a container is made of where nobody says otherwise. There is
// no health check: it would start a second coroner each time, in the agent's
// own memory limit, to ask what /-/healthy answers.
func config(w words) v1.Config {
	const home = "https://github.com/coroner-dev/coroner"
	return v1.Config{
		Entrypoint: []string{"coroner"},
		Cmd:        []string{"agent"},
		Env:        []string{"PATH=/usr/local/bin"},
		// As user 0 it opens the engines' sockets and the logs of containers by
		// their modes alone. Docker gives no other user any capability.
		User:         "0:0",
		WorkingDir:   "/",
		ExposedPorts: map[string]struct{}{"3001/tcp": {}},
		Volumes:      map[string]struct{}{"/" + state: {}},
		StopSignal:   "SIGTERM",
		Labels: map[string]string{
			"org.opencontainers.image.title":         "coroner",
			"org.opencontainers.image.description":   "says why a container died",
			"org.opencontainers.image.licenses":      "Apache-2.0",
			"org.opencontainers.image.url":           home,
			"org.opencontainers.image.source":        home,
			"org.opencontainers.image.documentation": home + "/blob/main/README.md",
			"org.opencontainers.image.version":       w.version,
			"org.opencontainers.image.revision":      w.revision,
			"org.opencontainers.image.created":       w.created.Format(time.RFC3339),
		},
	}
}

// files are all that is in the image, as a tar: folders, and the program.
func files(program []byte, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "usr/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "usr/local/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "usr/local/bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "var/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "var/lib/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: state + "/", Typeflag: tar.TypeDir, Mode: 0o750},
		{Name: "usr/local/bin/coroner", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))},
	} {
		h.ModTime, h.Format = at, tar.FormatUSTAR
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
}
