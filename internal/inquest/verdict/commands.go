// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/coroner-dev/coroner/internal/death"
)

// logCommand prints the last that the run that ended wrote; "": whoever runs
// the container has no such command, or its names are none for a shell.
func logCommand(c *death.Container) string {
	switch {
	case c == nil:
		return ""
	case c.Pod != nil && plain(c.Pod.Namespace) && plain(c.Pod.Name) && plain(c.Name):
		return "kubectl logs -n " + c.Pod.Namespace + " " + c.Pod.Name + " -c " + c.Name + " --previous"
	case ownCommand(c.Runtime) && plain(handle(c)):
		return c.Runtime + " logs --tail 20 " + handle(c)
	case (c.Pod != nil || c.Runtime == "cri-o") && plain(c.ID):
		return "crictl logs --tail 20 " + death.ShortID(c.ID)
	}
	return ""
}

// raiseHow says where a memory limit is raised, and to what; "": not known.
func raiseHow(f *Facts, from, to int64) string {
	c := f.Container
	switch {
	case c == nil:
		return ""
	case c.Pod != nil:
		return "To raise it: resources.limits.memory of the container in the manifest of what makes the pod."
	case ownCommand(c.Runtime) && plain(handle(c)):
		return fmt.Sprintf("To raise it: %s update --memory %dm%s %s (and the same where the container is made).%s",
			c.Runtime, inMiB(to), swapToo(f.MemorySwap, from, to), handle(c), swapIs(f.MemorySwap))
	}
	return ""
}

func inMiB(n int64) int64 { return n >> 20 }

// swapToo has the limit of memory and swap together grow with that of memory,
// which it may not be below; it keeps as much swap as there was.
func swapToo(limit *int64, from, to int64) string {
	switch {
	case unlimited(limit):
		return ""
	case limit == nil || *limit == 2*from:
		return fmt.Sprintf(" --memory-swap %dm", inMiB(2*to))
	}
	return fmt.Sprintf(" --memory-swap %dm", inMiB(roundUp(to+max(0, *limit-from))))
}

func swapIs(limit *int64) string {
	if unlimited(limit) {
		return ""
	}
	return " --memory-swap is memory and swap together, by default twice the memory, and may not be below it."
}

func unlimited(limit *int64) bool { return limit != nil && *limit < 0 }

// ownCommand tells whether a runtime has a command of its name, after Docker's.
func ownCommand(runtime string) bool { return runtime == "docker" || runtime == "podman" }

// handle is by what a container is named to its engine.
func handle(c *death.Container) string {
	if plain(c.Name) {
		return c.Name
	}
	return death.ShortID(c.ID)
}

// plain tells whether a shell takes s as one word, and a command as no option:
// names are claims of whoever made the container.
func plain(s string) bool {
	return s != "" && s[0] != '-' && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' || r == '-')
	}) < 0
}
