// SPDX-License-Identifier: Apache-2.0

package host

import (
	"strings"
	"testing"
)

// From Linux 6.18; some lines are left out.
const meminfo618 = `MemTotal:       24731700 kB
MemFree:        20822072 kB
MemAvailable:   23934752 kB
Buffers:          127808 kB
Active(anon):       1604 kB
HugePages_Total:       3
Hugepagesize:       2048 kB
`

func TestParseMemInfo(t *testing.T) {
	m, err := ParseMemInfo(meminfo618)
	if err != nil {
		t.Fatal(err)
	}
	if m["MemTotal"] != 24731700<<10 || m["Active(anon)"] != 1604<<10 || *m.Available() != 23934752<<10 {
		t.Errorf("got %v", m)
	}
	if _, has := m["HugePages_Total"]; has {
		t.Error("a count of huge pages was taken for bytes")
	}
	for _, text := range []string{"", "MemTotal: 1 kB\n", "MemTotal: x kB\nMemFree: 1 kB\n", "MemTotal: 0 kB\nMemFree: 0 kB\n", "MemTotal: 4 kB\nMemFree: 1 kB"} {
		if m, err := ParseMemInfo(text); err == nil {
			t.Errorf("%q: %v, want an error", text, m)
		}
	}
	if m, err := ParseMemInfo("MemTotal: 4 kB\nMemFree: 0 kB\n"); err != nil || m.Available() != nil {
		t.Errorf("a kernel before 3.14: %v, %v", m, err)
	}
}

func TestParseTaskMemory(t *testing.T) {
	const status = "Name:\tweb\\n\nPid:\t7\nVmPeak:\t 9 kB\nVmRSS:\t  2048 kB\nVmPTE:\t      44 kB\nVmSwap:\t       8 kB\n"
	got, ok, err := parseTaskMemory(status)
	if want := (TaskMemory{Comm: `web\n`, RSSBytes: 2048 << 10, PageTablesBytes: 44 << 10, SwapBytes: 8 << 10}); err != nil || !ok || got != want {
		t.Errorf("got %+v, %v, %v; want %+v", got, ok, err, want)
	}
	if _, ok, err := parseTaskMemory("Name:\tkthreadd\nPid:\t2\n"); ok || err != nil {
		t.Errorf("a kernel thread: %v, %v; want none", ok, err)
	}
	if _, _, err := parseTaskMemory("VmRSS:\t-1 kB\n"); err == nil {
		t.Error("a negative size is no error")
	}
}

func TestParsePerCPUFree(t *testing.T) {
	const text = "Node 0, zone   Normal\n  pages free     12345\n  pagesets\n    cpu: 0\n              count:    63\n              high:     378\n    cpu: 1\n              count:    7\n"
	if n, err := parsePerCPUFree(text); err != nil || n != 70 {
		t.Errorf("got %d, %v; want 70 pages", n, err)
	}
	if _, err := parsePerCPUFree("   count: x\n"); err == nil {
		t.Error("what is no number is no error")
	}
}

func FuzzMemory(f *testing.F) {
	f.Add(meminfo618)
	f.Add("VmRSS:\t  2048 kB\nVmPTE:\t44 kB\nVmSwap:\t8 kB\nName:\tx\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMemInfo(text)
		if (err == nil) == (m == nil) {
			t.Errorf("%v and %v of %q", m, err, text)
		}
		for key, n := range m {
			if n < 0 || !strings.Contains(text, key+":") {
				t.Errorf("%s: %d of %q", key, n, text)
			}
		}
		if n, err := parsePerCPUFree(text); n < 0 || err != nil && n != 0 {
			t.Errorf("%d and %v of %q", n, err, text)
		}
		if got, ok, err := parseTaskMemory(text); err != nil && (ok || got != TaskMemory{}) || got.RSSBytes < 0 || got.SwapBytes < 0 || got.PageTablesBytes < 0 {
			t.Errorf("%+v, %v, %v of %q", got, ok, err, text)
		}
	})
}
