// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"strings"
)

// maxMountinfo is 64 MiB: a node with 10,000 mounts has about 2 MiB.
const maxMountinfo = 64 << 20

// mount is a line of mountinfo (proc_pid_mountinfo(5), since Linux 2.6.26).
type mount struct {
	root    string // which directory of the file system is mounted
	point   string
	fstype  string
	super   string // options of the file system, comma separated
	options string // options of this mount
}

// mounts reads the mounts of this process's own mount namespace: only those
// can be opened by their path.
func (r Roots) mounts() ([]mount, error) {
	path := r.ProcPath("self/mountinfo")
	b, err := readFile(path, maxMountinfo)
	if err != nil {
		return nil, err
	}
	ms, err := parseMountinfo(string(b))
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	return ms, nil
}

// parseMountinfo understands
//
//	36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/root rw,errors=continue
//
// where any number of optional fields stand before the lone hyphen.
func parseMountinfo(text string) ([]mount, error) {
	var ms []mount
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\n")
		if line == "" {
			continue
		}
		m, ok := parseMount(line)
		if !ok {
			return nil, fmt.Errorf("line %d: %q", n, clip(line))
		}
		ms = append(ms, m)
	}
	return ms, nil
}

func parseMount(line string) (mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	if !ok {
		return mount{}, false
	}
	head, tail := strings.Split(before, " "), strings.Split(after, " ")
	if len(head) < 6 || len(tail) < 3 {
		return mount{}, false
	}
	return mount{
		root:    unescapeOctal(head[3]),
		point:   unescapeOctal(head[4]),
		options: head[5],
		fstype:  tail[0],
		// The options are last; the source before them may be empty.
		super: tail[len(tail)-1],
	}, true
}

// hasOption tells whether a comma separated list holds name as a whole.
func hasOption(options, name string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == name {
			return true
		}
	}
	return false
}

// unescapeOctal turns the kernel's \040 forms (seq_path: space, tab, newline,
// backslash, and # in some) back into bytes.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1]) && s[i+1] <= '3' && isOctal(s[i+2]) && isOctal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// clip bounds foreign text in messages.
func clip(s string) string {
	const most = 120
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
