// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The machine's disk with -systemd: a small Debian with systemd, the programs
// that kill before the kernel must, and container engines. The name has a number:
// raise it when what is in the image changes.
const (
	rootSuite   = "bookworm"
	rootInclude = "systemd-sysv,dbus,systemd-oomd,earlyoom,docker.io,containerd,runc,busybox-static"
	rootImage   = "root-bookworm-2.img"
	rootSize    = "2G" // its files take 0.4; what a machine writes is gone with it
)

// atRest are the services that a machine starts only where a test asks for them.
func atRest() []string {
	return []string{
		"earlyoom.service", "systemd-oomd.service", "systemd-oomd.socket", "docker.service", "docker.socket", "containerd.service",
		"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
	}
}

// modulesFolder has a number, too.
const modulesFolder = "modules-2"

// diskModules are what the kernel needs to see the disk, in the order of
// loading, and the engines for their images. Debian's cloud kernels have ext4
// built in.
func diskModules() []string {
	return []string{
		"drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_modern_dev",
		"drivers/virtio/virtio_pci_legacy_dev", "drivers/virtio/virtio_pci", "drivers/block/virtio_blk",
		"fs/overlayfs/overlay",
	}
}

// fetchRoot gives the disk's image, from the cache or made with mmdebstrap.
func fetchRoot(ctx context.Context, cache string) (string, error) {
	image := filepath.Join(cache, rootImage)
	if _, err := os.Stat(image); err == nil {
		return image, nil
	}
	for program, pkg := range map[string]string{"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", fmt.Errorf("%w (hint: apt-get install -y --no-install-recommends %s)", err, pkg)
		}
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(cache, "root-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	tree, made := filepath.Join(tmp, "tree"), filepath.Join(tmp, "img")
	args := []string{"--quiet", "--variant=minbase", "--include=" + rootInclude}
	for _, none := range []string{"doc", "man", "locale", "info"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+none+"/*")
	}
	if _, err := command(ctx, "", "mmdebstrap", append(args, rootSuite, tree)...); err != nil {
		return "", err
	}
	for _, unit := range atRest() {
		wanted, _ := filepath.Glob(filepath.Join(tree, "etc/systemd/system/*.wants", unit))
		for _, link := range wanted {
			if err := os.Remove(link); err != nil {
				return "", err
			}
		}
	}
	if _, err := command(ctx, "", "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, made, rootSize); err != nil {
		return "", err
	}
	return image, os.Rename(made, image)
}

// modules gives the kernel's modules for the disk, unpacked beside its image.
func modules(ctx context.Context, kernel string) ([]string, error) {
	dir := filepath.Join(filepath.Dir(kernel), modulesFolder)
	if _, err := os.Stat(dir); err != nil {
		if err := fetchModules(ctx, filepath.Base(filepath.Dir(kernel)), dir); err != nil {
			return nil, fmt.Errorf("modules: %w", err)
		}
	}
	var out []string
	for _, m := range diskModules() {
		out = append(out, filepath.Join(dir, filepath.Base(m)+".ko"))
	}
	return out, nil
}

func fetchModules(ctx context.Context, pkg, dir string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "fetch-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := unpack(ctx, pkg, tmp); err != nil {
		return err
	}
	all := filepath.Join(tmp, "all")
	if err := os.Mkdir(all, 0o755); err != nil {
		return err
	}
	for _, m := range diskModules() {
		found, _ := filepath.Glob(filepath.Join(tmp, "lib/modules/*/kernel", m+".ko*"))
		if len(found) == 0 {
			return fmt.Errorf("package %s has no %s", pkg, m)
		}
		if err := unpackModule(ctx, found[0], filepath.Join(all, filepath.Base(m)+".ko")); err != nil {
			return err
		}
	}
	return os.Rename(all, dir)
}

// unpackModule moves a module, and unpacks it where it is compressed.
func unpackModule(ctx context.Context, from, to string) error {
	switch {
	case strings.HasSuffix(from, ".ko"):
		return os.Rename(from, to)
	case strings.HasSuffix(from, ".ko.xz"):
		text, err := command(ctx, "", "xz", "-dc", from)
		if err != nil {
			return err
		}
		return os.WriteFile(to, []byte(text), 0o644)
	}
	return errors.New("how is this packed? " + from)
}
