// SPDX-License-Identifier: Apache-2.0

package cgpath

import "strings"

const (
	guaranteed = "Guaranteed"
	burstable  = "Burstable"
	bestEffort = "BestEffort"

	idLen = 64 // digits of a container's id
)

// prefixes are the words that runtimes put before a container's id.
var prefixes = []struct{ word, runtime string }{
	{"cri-containerd", Containerd},
	{"nerdctl", Containerd},
	{"docker", Docker},
	{"crio", CRIO},
	{"libpod", Podman},
	{"libpod-payload", Podman},
}

// parents are the groups in which runtimes put containers that bear the bare id.
var parents = []struct{ name, runtime string }{
	{"docker", Docker},
	{"k8s.io", Containerd},
}

type container struct {
	id, runtime string
	// slice is the pod's slice when it is part of the same name.
	slice string
}

// parseContainer takes
//
//	ID                       cgroupfs
//	WORD-ID, WORD-ID.scope   systemd, and CRI-O everywhere
//	SLICE:WORD:ID            the runtime does not know that the slice is systemd's
func parseContainer(name, parent string) (container, bool) {
	name = strings.TrimSuffix(name, ".scope")
	if len(name) < idLen || !isHex(name[len(name)-idLen:]) {
		return container{}, false
	}
	word, id := name[:len(name)-idLen], name[len(name)-idLen:]
	if word == "" {
		for _, p := range parents {
			if p.name == parent {
				return container{id: id, runtime: p.runtime}, true
			}
		}
		return container{id: id}, true
	}
	if w, ok := strings.CutSuffix(word, ":"); ok {
		i := strings.LastIndexByte(w, ':')
		return container{id: id, runtime: runtimeOf(w[i+1:]), slice: w[:max(i, 0)]}, true
	}
	w, ok := cutDash(word)
	if !ok {
		return container{}, false
	}
	return container{id: id, runtime: runtimeOf(w)}, true
}

func runtimeOf(word string) string {
	for _, p := range prefixes {
		if equalEscaped(word, p.word) {
			return p.runtime
		}
	}
	return ""
}

// cutContainer returns the runtime of a scope that has the name of a
// container's but for a shorter id.
func cutContainer(name string) string {
	name, ok := strings.CutSuffix(name, ".scope")
	i := strings.LastIndexByte(name, '-')
	if !ok || i < 0 || len(name)-i-1 < 8 || !isHex(name[i+1:]) {
		return ""
	}
	return runtimeOf(name[:i])
}

// isMonitor tells conmon's groups: crio-conmon-ID, libpod-conmon-ID, with or
// without .scope.
func isMonitor(name string) bool {
	name = strings.TrimSuffix(name, ".scope")
	for _, word := range []string{"crio-conmon-", "libpod-conmon-"} {
		if id, ok := strings.CutPrefix(name, word); ok && len(id) == idLen && isHex(id) {
			return true
		}
	}
	return false
}

type pod struct {
	uid    string
	static bool
	qos    string
}

// parsePodDir takes podUID, the cgroupfs form.
func parsePodDir(name string) (pod, bool) {
	s, ok := strings.CutPrefix(name, "pod")
	if !ok {
		return pod{}, false
	}
	uid, static, ok := parseUID(s)
	return pod{uid: uid, static: static}, ok
}

// parsePodSlice takes PARENT-podUID.slice, the systemd form.
func parsePodSlice(name string) (pod, bool) {
	s, ok := strings.CutSuffix(name, ".slice")
	i := strings.LastIndex(s, "pod")
	if !ok || i < 0 {
		return pod{}, false
	}
	parent, ok := cutDash(s[:i])
	if !ok {
		return pod{}, false
	}
	uid, static, ok := parseUID(s[i+len("pod"):])
	if !ok {
		return pod{}, false
	}
	p := pod{uid: uid, static: static}
	switch {
	case endsInName(parent, "kubepods"):
		p.qos = guaranteed
	case endsInName(parent, "kubepods-burstable"):
		p.qos = burstable
	case endsInName(parent, "kubepods-besteffort"):
		p.qos = bestEffort
	}
	return p, true
}

// parsePodmanPod takes PARENT-libpod_pod_ID.slice, and libpod_parent/ID.
func parsePodmanPod(name, parent string) (string, bool) {
	if parent == "libpod_parent" && len(name) == idLen && isHex(name) {
		return name, true
	}
	s, ok := strings.CutSuffix(name, ".slice")
	i := strings.LastIndex(s, "libpod_pod_")
	if !ok || i < 0 {
		return "", false
	}
	id := s[i+len("libpod_pod_"):]
	return id, len(id) == idLen && isHex(id)
}

// parseUID takes 8-4-4-4-12 digits parted by -, _ or \x2d, or the 32 digits
// of a static pod's hash.
func parseUID(s string) (uid string, static, ok bool) {
	if len(s) == 32 && isHex(s) {
		return s, true, true
	}
	whole, dashes := s, 0
	var b [36]byte
	n := 0
	for _, digits := range [...]int{8, 4, 4, 4, 12} {
		if n > 0 {
			rest, dash, ok := cutParting(s)
			if !ok {
				return "", false, false
			}
			s = rest
			if dash {
				dashes++
			}
			b[n] = '-'
			n++
		}
		if len(s) < digits || !isHex(s[:digits]) {
			return "", false, false
		}
		n += copy(b[n:], s[:digits])
		s = s[digits:]
	}
	if s != "" {
		return "", false, false
	}
	if dashes == 4 {
		return whole, false, true // as it should be: nothing to copy
	}
	return string(b[:]), false, true
}

// cutParting takes off what parts the groups of a uid.
func cutParting(s string) (rest string, dash, ok bool) {
	if s != "" && (s[0] == '_' || s[0] == '-') {
		return s[1:], s[0] == '-', true
	}
	rest, ok = strings.CutPrefix(s, escapedDash)
	return rest, false, ok
}

func qosOf(name string) string {
	switch name {
	case "burstable":
		return burstable
	case "besteffort":
		return bestEffort
	}
	return ""
}

// parseGuest takes lxc/NAME at the root, lxc.payload.NAME and lxc.payload/NAME
// anywhere.
func parseGuest(name, parent string, top bool) (string, bool) {
	if guest, ok := strings.CutPrefix(name, "lxc.payload."); ok && guest != "" {
		return guest, true
	}
	return name, parent == "lxc.payload" || parent == "lxc" && top
}

// isUnit tells the systemd units, slices apart, that have a cgroup.
func isUnit(name string) bool {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 {
		return false
	}
	switch name[i:] {
	case ".service", ".scope", ".mount", ".swap", ".socket":
		return true
	}
	return false
}

// escapedDash is how systemd writes a dash that is part of a name.
const escapedDash = `\x2d`

// cutDash cuts one dash, plain or escaped, off the end.
func cutDash(s string) (string, bool) {
	if before, ok := strings.CutSuffix(s, "-"); ok {
		return before, true
	}
	return strings.CutSuffix(s, escapedDash)
}

// endsInName tells whether a slice's name is name, or ends in it after the
// dash that systemd puts between a slice and the slice around it.
func endsInName(slice, name string) bool {
	before, ok := strings.CutSuffix(slice, name)
	if !ok || before == "" {
		return ok
	}
	_, ok = cutDash(before)
	return ok
}

// equalEscaped compares with plain while taking escaped dashes for dashes.
func equalEscaped(s, plain string) bool {
	for plain != "" {
		switch {
		case s == "":
			return false
		case s[0] == plain[0]:
			s = s[1:]
		case plain[0] == '-' && strings.HasPrefix(s, escapedDash):
			s = s[len(escapedDash):]
		default:
			return false
		}
		plain = plain[1:]
	}
	return s == ""
}

// isHex tells whether all are lower-case hexadecimal digits.
func isHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
