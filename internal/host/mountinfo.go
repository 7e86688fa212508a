// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
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
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rest := &io.LimitedReader{R: f, N: maxMountinfo + 1}
	ms, err := parseMountinfo(rest)
	switch {
	case rest.N <= 0:
		return nil, fmt.Errorf("read %s: larger than %d bytes", path, maxMountinfo)
	case err != nil:
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	return ms, nil
}

// parseMountinfo understands
//
//	36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/root rw,errors=continue
//
// where any number of optional fields stand before the lone hyphen. It gives the
// mounts of the kernel's own file systems that somebody here asks for: a node
// has several of other kinds for each container, with long options.
func parseMountinfo(r io.Reader) ([]mount, error) {
	var ms []mount
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 16<<10), maxMountinfo)
	for n := 1; lines.Scan(); n++ {
		line := lines.Bytes()
		if len(line) == 0 {
			continue
		}
		before, after, ok := bytes.Cut(line, []byte(" - "))
		if !ok || bytes.Count(before, []byte(" ")) < 5 || bytes.Count(after, []byte(" ")) < 2 {
			return nil, fmt.Errorf("line %d: %q", n, clip(string(line)))
		}
		switch fstype, _, _ := bytes.Cut(after, []byte(" ")); string(fstype) {
		case "cgroup", "cgroup2", "tracefs":
			ms = append(ms, mountOf(string(before), string(after)))
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return ms, nil
}

// mountOf reads what stands before and after the hyphen.
func mountOf(before, after string) mount {
	head, tail := strings.Split(before, " "), strings.Split(after, " ")
	return mount{
		root:    unescapeOctal(head[3]),
		point:   unescapeOctal(head[4]),
		options: head[5],
		fstype:  tail[0],
		// The options are last; the source before them may be empty.
		super: tail[len(tail)-1],
	}
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
