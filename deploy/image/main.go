// SPDX-License-Identifier: Apache-2.0

// Command image puts the program into a container image: a tar as "docker
// save" writes it, which "docker load", podman, skopeo and "ctr images import"
// take. It needs no daemon, no network and no base image: the program is
// static. The same program and the same words give the same bytes.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	f := flag.NewFlagSet("image", flag.ContinueOnError)
	binary := f.String("binary", "bin/coroner", "static Linux `program`")
	to := f.String("to", "bin/coroner-image.tar", "tar `file` to write")
	tag := f.String("tag", "coroner:latest", "`name` of the image")
	seconds := f.Int64("created", 0, "`seconds` since 1970 that all in it is of, as SOURCE_DATE_EPOCH")
	var w words
	f.StringVar(&w.version, "version", "unknown", "version of the program")
	f.StringVar(&w.revision, "revision", "unknown", "commit of the program")
	if err := f.Parse(args); err != nil {
		return err
	}
	w.created = time.Unix(*seconds, 0).UTC()
	ref, err := name.NewTag(*tag)
	if err != nil {
		return fmt.Errorf("-tag: %w", err)
	}
	program, err := os.ReadFile(*binary)
	if err != nil {
		return err
	}
	if w.arch, err = architecture(program); err != nil {
		return fmt.Errorf("%s: %w", *binary, err)
	}
	img, err := build(program, w)
	if err != nil {
		return err
	}
	if err := tarball.WriteToFile(*to, ref, img); err != nil {
		return fmt.Errorf("write %s: %w", *to, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s  %s  linux/%s  %s\n", *to, *tag, w.arch, digest)
	return err
}
