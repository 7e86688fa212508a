// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// version is Kubernetes', of go.mod.
const version = "v1.34.4"

// built are the programs that the tests run: Kubernetes, coroner, and what runs
// in containers.
type built struct{ kubernetes, coroner, load string }

// build makes them. Kubernetes takes minutes the first time, and half a second
// from then on.
func build(t *testing.T) built {
	t.Helper()
	dir := t.TempDir()
	b := built{filepath.Join(dir, "kubernetes"), filepath.Join(dir, "coroner"), filepath.Join(dir, "load")}
	ldflags := "-s -w"
	for _, v := range []string{"k8s.io/component-base/version.", "k8s.io/client-go/pkg/version."} {
		ldflags += " -X " + v + "gitVersion=" + version + " -X " + v + "gitMajor=1 -X " + v + "gitMinor=34 -X " + v + "gitTreeState=clean"
	}
	for _, args := range [][]string{
		{"-ldflags=" + ldflags, "-o", b.kubernetes, "./kubernetes"},
		{"-ldflags=-s -w", "-o", b.load, "./load"},
		{"-C", "../..", "-ldflags=-s -w", "-o", b.coroner, "./cmd/coroner"},
	} {
		front := []string{"build"}
		if args[0] == "-C" {
			front, args = append(front, args[:2]...), args[2:]
		}
		c := exec.Command("go", append(append(front, "-trimpath", "-buildvcs=false"), args...)...)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("go build %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return b
}

// require skips where this machine cannot run a cluster, and says why.
func require(t *testing.T) {
	t.Helper()
	skip := func(why string) {
		if os.Getenv("CORONER_CI") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	if os.Geteuid() != 0 {
		skip("needs root")
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory/memory.limit_in_bytes"); err != nil {
		t.Skip("needs: memory on cgroup v1; on v2 the kubelet has the kernel kill whole containers")
	}
	for program, debian := range map[string]string{
		"etcd": "etcd-server", "containerd": "containerd", "ctr": "containerd", "runc": "runc", "ip": "iproute2", "nsenter": "util-linux",
		"/usr/lib/cni/bridge": "containernetworking-plugins",
	} {
		if _, err := exec.LookPath(program); err != nil {
			skip("no " + program + " (hint: apt-get install --no-install-recommends " + debian + ")")
		}
	}
}
