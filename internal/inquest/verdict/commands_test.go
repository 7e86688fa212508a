// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"strings"
	"testing"
	"time"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/parse/cgpath"
)

// TestAdvice_NamesTheCommand: who is told to read the log is told how, by the
// command of whoever runs the container; names that a shell would read
// otherwise are in none.
func TestAdvice_NamesTheCommand(t *testing.T) {
	const id = "3f1c9a5e7b2d4c6f8091a2b3c4d5e6f7"
	for _, tc := range []struct {
		name string
		c    death.Container
		says string
	}{
		{"docker", death.Container{ID: id, Name: "web-1", Runtime: "docker"}, "why it left (docker logs --tail 20 web-1)."},
		{"podman, no name", death.Container{ID: id, Runtime: "podman"}, "(podman logs --tail 20 3f1c9a5e7b2d)."},
		{"hostile name", death.Container{ID: id, Name: "a;reboot", Runtime: "docker"}, "(docker logs --tail 20 3f1c9a5e7b2d)."},
		{"an option as a name", death.Container{ID: id, Name: "--help", Runtime: "docker"}, "(docker logs --tail 20 3f1c9a5e7b2d)."},
		{"pod", death.Container{ID: id, Name: "cart", Runtime: "containerd", Pod: &death.Pod{Namespace: "shop", Name: "cart-1"}}, "(kubectl logs -n shop cart-1 -c cart --previous)."},
		{"pod by uid", death.Container{ID: id, Runtime: "containerd", Pod: &death.Pod{UID: "u1"}}, "(crictl logs --tail 20 3f1c9a5e7b2d)."},
		{"pod with a hostile name", death.Container{ID: id, Name: "a", Runtime: "cri-o", Pod: &death.Pod{Namespace: "$(id)", Name: "b"}}, "(crictl logs --tail 20 3f1c9a5e7b2d)."},
		{"containerd, which keeps no logs", death.Container{ID: id, Name: "batch", Runtime: "containerd"}, "why it left."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := Judge(Facts{Container: &tc.c, Ended: true, Exit: &death.Exit{Code: ptr(3)}, FromKernel: true})
			if v.Cause != death.Error || !strings.HasSuffix(v.Advice[0], tc.says) {
				t.Errorf("%s: advice %q", v.Cause, v.Advice)
			}
		})
	}
}

// TestAdvice_SaysHowToRaise: Docker refuses a limit above that of memory and
// swap; a pod's is in its manifest; of pods is spoken with a pod alone.
func TestAdvice_SaysHowToRaise(t *testing.T) {
	at := limit(container, cgpath.Container, 40*mib)
	docker := both(at, func(f *Facts) { f.Container.Runtime, f.Container.Pod = "docker", nil })
	for _, tc := range []struct {
		name  string
		facts Facts
		says  string
		pods  bool
	}{
		{"docker", inPod(docker), "docker update --memory 50m --memory-swap 100m cart (", false},
		{"docker, as much swap as there was", inPod(both(docker, func(f *Facts) { f.MemorySwap = ptr(48 * mib) })), "docker update --memory 50m --memory-swap 58m cart (", false},
		{"docker, no swap", inPod(both(docker, func(f *Facts) { f.MemorySwap = ptr(40 * mib) })), "docker update --memory 50m --memory-swap 50m cart (", false},
		{"docker, by default", inPod(both(docker, func(f *Facts) { f.MemorySwap = ptr(80 * mib) })), "docker update --memory 50m --memory-swap 100m cart (", false},
		{"docker, all swap", inPod(both(docker, func(f *Facts) { f.MemorySwap = ptr(int64(-1)) })), "docker update --memory 50m cart (", false},
		{"docker, a leak", inPod(both(docker, leaks(mib, time.Minute))), "docker update --memory 50m --memory-swap 100m cart (", false},
		{"pod", inPod(at), "resources.limits.memory", true},
		{"docker, lives on", inPod(docker), "need not show this kill", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all := strings.Join(Judge(tc.facts).Advice, "\n")
			if !strings.Contains(all, tc.says) || strings.Contains(strings.ToLower(all), "pod") != tc.pods {
				t.Errorf("advice does not say %q, or speaks of pods (want %v):\n%s", tc.says, tc.pods, all)
			}
		})
	}
}
