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

// maxSlices bounds slices within slices.
const maxSlices = 64

// SystemdCgroup is where systemd puts SLICE:PREFIX:NAME, which is a cgroup's
// path in the OCI runtime specification: the slice a-b.slice lies in a.slice,
// and the container's scope in it. Empty: it is of another form.
func SystemdCgroup(p string) string {
	f := strings.Split(p, ":")
	if len(f) != 3 || strings.Count(p, "-") > maxSlices {
		return ""
	}
	slice, prefix, name := f[0], f[1], f[2]
	if slice == "" {
		slice = "system.slice"
	}
	stem, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || strings.Contains(p, "/") {
		return ""
	}
	var out strings.Builder
	if stem != "-" { // the root slice
		part := ""
		for word := range strings.SplitSeq(stem, "-") {
			if word == "" {
				return ""
			}
			part += word
			out.WriteString("/" + part + ".slice")
			part += "-"
		}
	}
	if prefix != "" {
		prefix += "-"
	}
	if strings.HasSuffix(name, ".slice") {
		return out.String() + "/" + name
	}
	return out.String() + "/" + prefix + name + ".scope"
}
