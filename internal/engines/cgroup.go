// SPDX-License-Identifier: Apache-2.0

package engines

import "strings"

// OwnCgroup returns which part of the cgroup of a container's process is the
// container's own: up to the first name that its id ends, as ID, docker-ID.scope
// and the like. A process can live deeper in it. Empty: no name has the id, so
// this is the path of another process, or of one that was moved away.
func OwnCgroup(path, id string) string {
	if id == "" {
		return ""
	}
	for end := 0; end < len(path); {
		begin := end + 1
		if end = strings.IndexByte(path[begin:], '/') + begin; end < begin {
			end = len(path)
		}
		before, ok := strings.CutSuffix(strings.TrimSuffix(path[begin:end], ".scope"), id)
		if ok && (before == "" || strings.HasSuffix(before, "-") || strings.HasSuffix(before, ":")) {
			return path[:end]
		}
	}
	return ""
}
