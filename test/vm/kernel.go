// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var digits = regexp.MustCompile(`\d+`)

// fetchKernel gives the path of a kernel image of the series, from the cache
// or from Debian's archive.
func fetchKernel(ctx context.Context, series, cache string) (string, error) {
	pkg, err := newestPackage(ctx, series, cache)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, pkg)
	image := filepath.Join(dir, "vmlinuz")
	if _, err := os.Stat(image); err == nil {
		return image, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := unpack(ctx, pkg, tmp); err != nil {
		return "", err
	}
	// Newer packages keep the image in one that they depend on.
	found, _ := filepath.Glob(filepath.Join(tmp, "boot", "vmlinuz-*"))
	if len(found) == 0 {
		if err := unpackParts(ctx, pkg, tmp); err != nil {
			return "", err
		}
		found, _ = filepath.Glob(filepath.Join(tmp, "usr", "lib", "modules", "*", "vmlinuz"))
	}
	if len(found) == 0 {
		return "", fmt.Errorf("package %s holds no image", pkg)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return image, os.Rename(found[0], image)
}

// newestPackage names the newest package of a series like 6.1 that apt knows,
// or that is in the cache where there is no apt.
func newestPackage(ctx context.Context, series, cache string) (string, error) {
	if strings.HasPrefix(series, "linux-image-") {
		return series, nil
	}
	candidates, aptErr := offered(ctx, series)
	if len(candidates) == 0 && os.Geteuid() == 0 { // a fresh machine has no lists
		if _, err := command(ctx, "", "apt-get", "-qq", "update"); err == nil {
			candidates, aptErr = offered(ctx, series)
		}
	}
	kept, _ := filepath.Glob(filepath.Join(cache, "linux-image-"+series+".*"))
	for _, k := range kept {
		candidates = append(candidates, filepath.Base(k))
	}
	if len(candidates) == 0 {
		return "", errors.Join(aptErr, errors.New("apt knows no such package (hint: apt-get update, on Debian)"))
	}
	return slices.MaxFunc(candidates, func(a, b string) int { return slices.Compare(numbers(a), numbers(b)) }), nil
}

// offered lists the packages of a series that apt can fetch.
func offered(ctx context.Context, series string) ([]string, error) {
	names, err := command(ctx, "", "apt-cache", "pkgnames", "linux-image-"+series+".")
	return slices.DeleteFunc(strings.Fields(names), func(n string) bool {
		return !strings.HasSuffix(n, "-cloud-amd64") || strings.Contains(n, "-rt-")
	}), err
}

func numbers(name string) []int {
	var out []int
	for _, d := range digits.FindAllString(name, -1) {
		n, _ := strconv.Atoi(d) // digits alone
		out = append(out, n)
	}
	return out
}

// unpackParts unpacks the packages into which newer releases split an image.
func unpackParts(ctx context.Context, pkg, dir string) error {
	out, err := command(ctx, "", "apt-cache", "depends", pkg)
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && strings.HasPrefix(name, "linux-binary-") {
			if err := unpack(ctx, name, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// unpack fetches a package and unpacks it into dir; it is not installed.
func unpack(ctx context.Context, pkg, dir string) error {
	debs := filepath.Join(dir, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	// As root, apt would want a user of its own to be able to write here.
	if _, err := command(ctx, debs, "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", pkg); err != nil {
		return err
	}
	found, _ := filepath.Glob(filepath.Join(debs, "*.deb"))
	for _, d := range found {
		if _, err := command(ctx, dir, "dpkg", "-x", d, dir); err != nil {
			return err
		}
	}
	return os.RemoveAll(debs)
}

// command runs a program and gives its output; its complaints are in the error.
func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	out, err := c.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %w: %s", name, args[0], err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}
