// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"testing"
)

// FuzzParseMountinfo: no more mounts than lines, none with what is not there,
// and a point as the kernel escapes it comes back whole.
func FuzzParseMountinfo(f *testing.F) {
	for _, s := range []string{mountsV1, mountsHybrid, mountsV2, mountsSpace, mountsPart, `\0`, `\777`, "/a b\\c\td\n#"} {
		f.Add(s)
	}
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`, "#", `\043`)
	f.Fuzz(func(t *testing.T, text string) {
		ms, err := parseMountinfo(strings.NewReader(text))
		if err != nil && (ms != nil || len(err.Error()) > 600) {
			t.Errorf("mounts %v and the error %v", ms, err)
		}
		if len(ms) > strings.Count(text, "\n")+1 {
			t.Errorf("%d mounts in %q", len(ms), text)
		}
		for _, m := range ms {
			if len(m.root)+len(m.point) > len(text) || !strings.Contains(text, m.options) || !strings.Contains(text, m.fstype) || !strings.Contains(text, m.super) {
				t.Errorf("%+v of %q", m, text)
			}
		}
		h, err := hierarchyOf(ms, func(string) bool { return true })
		there := slices.ContainsFunc(ms, func(m mount) bool { return m.point == h.Mount && m.root == h.Root })
		if (err == nil) != there && (err == nil || h != (Hierarchy{})) {
			t.Errorf("%+v, %v of %q", h, err, text)
		}
		if got := unescapeOctal(escape.Replace(text)); got != text {
			t.Errorf("%q came back as %q", text, got)
		}
	})
}

func FuzzParsers(f *testing.F) {
	for _, s := range []string{
		"pgfault 12\noom_kill 7\n", "Name:\tx\nNSpid:\t4711\t1\n", "CapEff:\t000001fffeffffff\n", "pid:[4026531836]", "oom_kill ", "pid:[]", "NSpid:", "NSpid:\t-1\t99999999999\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseVMStatOOMKill([]byte(text))
		if err != nil && n != 0 || err == nil && !strings.Contains("\n"+text, "\noom_kill ") {
			t.Errorf("vmstat: %d and %v of %q", n, err, text)
		}
		ids, err := idLine(text, "NSpid")
		if err != nil && ids != nil || len(ids) > 0 && !strings.Contains("\n"+text, "\nNSpid:") {
			t.Errorf("ids: %v and %v of %q", ids, err, text)
		}
		for _, id := range ids {
			if id < 0 || id > math.MaxInt32 {
				t.Errorf("id %d of %q", id, text)
			}
		}
		if n, err := parseNSLink(text); err != nil && n != 0 {
			t.Error("link: both a number and an error")
		}
		if c, err := parseCapEff(text); err != nil && c != 0 {
			t.Error("CapEff: both a set and an error")
		}
	})
}

// FuzzNumbers: what the kernel writes of a number comes back.
func FuzzNumbers(f *testing.F) {
	f.Add("x", uint64(7))
	f.Add("a\nNSpid:\t1", uint64(1)<<63)
	f.Fuzz(func(t *testing.T, name string, n uint64) {
		name = strings.ReplaceAll(name, "\n", `\n`) // as the kernel does
		if got, err := parseVMStatOOMKill(fmt.Appendf(nil, "oom_kill_x 1\noom_kill %d\n", n)); got != n || err != nil {
			t.Errorf("vmstat: %d, %v; want %d", got, err, n)
		}
		if got, err := parseNSLink(fmt.Sprintf("pid:[%d]", n)); got != n || err != nil {
			t.Errorf("link: %d, %v; want %d", got, err, n)
		}
		status := fmt.Sprintf("Name:\t%s\nNSpid:\t%d\t1\nCapEff:\t%016x\n", name, n>>33, n)
		if got, err := idLine(status, "NSpid"); !slices.Equal(got, []int{int(n >> 33), 1}) || err != nil {
			t.Errorf("%q: %v, %v", status, got, err)
		}
		if got, err := parseCapEff(status); got != CapSet(n) || err != nil {
			t.Errorf("%q: %v, %v", status, got, err)
		}
	})
}

// FuzzOwnCgroup: the cgroup stands in the text, and what is below a mount
// leads nowhere else.
func FuzzOwnCgroup(f *testing.F) {
	f.Add("0::/a/b\n", "/a", "max")
	f.Add("5:memory:/x\n0::/..\n", "/", "33554432")
	f.Add("0::/../x/../..\n", "", "9223372036854771712")
	f.Add("0::/ab\n", "/a", "-1")
	f.Fuzz(func(t *testing.T, text, root, limit string) {
		for version := range 3 {
			at, ok := ownCgroup(text, version)
			if !ok {
				continue
			}
			if version == 0 || at == "" || at[0] != '/' || !strings.Contains(text+"\n", ":"+at+"\n") {
				t.Errorf("v%d of %q: %q", version, text, at)
			}
			below, ok := belowMount(at, root)
			if !ok {
				continue
			}
			if below[0] != '/' || path.Clean(below) != below || below == "/.." || strings.HasPrefix(below, "/../") || len(below) > len(at)+1 {
				t.Errorf("%q below %q: %q", at, root, below)
			}
		}
		if n, ok := parseLimit(limit); n < 0 || n >= unlimited || !ok && n != 0 {
			t.Errorf("limit %q: %d, %v", limit, n, ok)
		}
	})
}
