// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// tool is a program that some tests need.
type tool struct {
	program, debian, why string
	parts                []string
}

// tools is the only list: .ci/run has what "make test" itself needs.
func tools() []tool {
	return []tool{
		{"qemu-system-x86_64", "qemu-system-x86", "other kernels", []string{"vm"}},
		{"mmdebstrap", "mmdebstrap", "a machine with systemd", []string{"vm"}},
		{"mke2fs", "e2fsprogs", "its disk", []string{"vm"}},
		{"cc", "gcc libc6-dev", "the race detector, and programs that fail", []string{"unit", "real", "vm"}},
		{"chromium", "chromium", "the pages in a browser", []string{"unit", "real"}},
		{"free", "procps", "what free shows, beside the node's map", []string{"unit", "real"}},
		{"promtool", "prometheus", "the metrics as Prometheus' linter reads them, and the alerts", []string{"real"}},
		{"prometheus-alertmanager", "prometheus-alertmanager", "the alerts as they reach somebody", []string{"real"}},
		{"dockerd", "docker.io", "a real Docker", []string{"real"}},
		{"containerd", "containerd", "a real containerd, and Docker's", []string{"real", "cluster"}},
		{"runc", "runc", "what runs their containers", []string{"real", "cluster"}},
		{"etcd", "etcd-server", "a Kubernetes cluster", []string{"cluster"}},
		{"/usr/lib/cni/bridge", "containernetworking-plugins", "the network of its pods", []string{"cluster"}},
		{"ip", "iproute2", "the network of its node", []string{"cluster"}},
		{"nsenter", "util-linux", "what runs in that", []string{"cluster"}},
		{"podman", "podman conmon", "a real podman", []string{"real"}},
		{"busybox", "busybox-static", "what runs in them", []string{"real"}},
		{"/usr/bin/java", "default-jre-headless", "a JVM that reaches its heap's limit", []string{"real"}},
		{"/usr/bin/node", "nodejs", "Node.js, the same", []string{"real"}},
		{"/usr/bin/php", "php-cli", "PHP, the same", []string{"real"}},
		{"/usr/bin/python3", "python3-minimal", "Python, the same", []string{"real"}},
		{"/usr/bin/ruby", "ruby", "Ruby, the same", []string{"real"}},
		{"systemd-analyze", "systemd", "the unit as systemd reads it", []string{"real"}},
	}
}

// lacking says which of the programs is not there, and how to get it; "" is none.
func lacking(programs ...string) string {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err == nil {
			continue
		}
		why := "no " + p
		if i := slices.IndexFunc(tools(), func(t tool) bool { return t.program == p }); i >= 0 {
			why += " (hint: apt-get install --no-install-recommends " + tools()[i].debian + ")"
		}
		return why
	}
	return ""
}

// install gets what is missing, as root on Debian.
func (r *runner) install(ctx context.Context, only string) {
	var missing []string
	for _, t := range tools() {
		needed := slices.ContainsFunc(t.parts, func(p string) bool { return strings.Contains(only, p) })
		if needed && lacking(t.program) != "" {
			missing = append(missing, strings.Fields(t.debian)...)
		}
	}
	if len(missing) == 0 || os.Geteuid() != 0 || lacking("apt-get") != "" {
		return
	}
	r.tally.title("apt-get install " + strings.Join(missing, " "))
	for _, args := range [][]string{
		{"-qq", "update"},
		// Another apt may be at work: what lacks a program is left out, and passes.
		append([]string{"-qq", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"}, missing...),
	} {
		c := exec.CommandContext(ctx, "apt-get", args...)
		c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		c.Stderr = os.Stderr
		if err := c.Run(); err != nil {
			// What needs them says so itself.
			fmt.Fprintf(r.tally.out, "apt-get %s: %v\n", args[1], err)
		}
	}
}
