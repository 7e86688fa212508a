// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
)

// clusterFolder is a module of its own, so that coroner does not depend on
// Kubernetes.
const clusterFolder = "test/cluster"

// clusterAhead compiles Kubernetes, which takes minutes the first time, while
// other parts run and with the processor time that they leave over. What it
// returns waits for that.
func clusterAhead(ctx context.Context, only string) func() error {
	if !strings.Contains(only, "cluster") || noCluster() != "" {
		return func() error { return nil }
	}
	args := []string{"go", "-C", clusterFolder, "build", "-trimpath", "-buildvcs=false", "-o", os.DevNull, "./kubernetes"}
	if lacking("nice") == "" {
		args = append([]string{"nice", "-n", "19"}, args...)
	}
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0") // as the tests build it
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	ended := make(chan error, 1)
	go func() { ended <- c.Run() }()
	return sync.OnceValue(func() error {
		if err := <-ended; err != nil {
			return fmt.Errorf("build Kubernetes: %w: %s", err, said.String())
		}
		return nil
	})
}

// cluster runs the agent in a real Kubernetes of one node.
func (r *runner) cluster(ctx context.Context, built func() error) error {
	if why := noCluster(); why != "" {
		r.tally.leave(wholePart+"a Kubernetes cluster", why)
		return nil
	}
	if err := built(); err != nil {
		return err
	}
	return r.calm().in(clusterFolder).goTest(ctx, "a Kubernetes cluster", []string{"."}, "-count=1")
}

func noCluster() string {
	switch {
	case runtime.GOOS != "linux" || runtime.GOARCH != "amd64":
		return "only written for linux/amd64"
	case os.Geteuid() != 0:
		return "needs root"
	case !exists(clusterFolder):
		return "no folder " + clusterFolder
	}
	return lacking("etcd", "containerd", "ctr", "runc", "ip", "nsenter", "/usr/lib/cni/bridge")
}
