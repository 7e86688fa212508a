// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stats are real files of memory.stat, of a process that held 4 MiB of private
// and 8 MiB of shared memory besides its own, and had written a file of 64 MiB,
// on v2 one of 16 MiB on the ramfs of a virtual machine.
func stats() map[string]map[figure]int64 {
	return map[string]map[figure]int64{
		"v1-6.18": {anon: 4 << 20, file: 75517952, shmem: 8 << 20, inactiveFile: 67117056},
		"v2-6.1":  {anon: 6479872, file: 24 << 20, shmem: 8 << 20, inactiveFile: 0, kernel: 139264},
		"v2-6.12": {anon: 4386816, file: 24 << 20, shmem: 8 << 20, inactiveFile: 0, kernel: 143360},
	}
}

func readStat(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/memory.stat-" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func versionOf(name string) int { return int(name[1] - '0') }

func TestParse_RealFiles(t *testing.T) {
	for name, want := range stats() {
		t.Run(name, func(t *testing.T) {
			var r reading
			all, err := r.parse(readStat(t, name), versionOf(name))
			got := map[figure]int64{}
			for f := range figures {
				if v := r.figure(f); v != nil {
					got[f] = *v
				}
			}
			if diff := cmp.Diff(want, got); diff != "" || !all || err != nil {
				t.Errorf("all %t, err %v (-want +got):\n%s", all, err, diff)
			}
		})
	}
}

func TestParse(t *testing.T) {
	const none = -1
	for _, tt := range []struct {
		name    string
		version int
		text    string
		want    [figures]int64 // anon, file, shmem, inactive_file, kernel
		all     bool
		err     string
	}{
		{"v1: only the totals", 1, "cache 9\nrss 9\ninactive_file 9\ntotal_cache 1\ntotal_rss 2\ntotal_rss_huge 9\ntotal_shmem 3\ntotal_inactive_file 4\ntotal_active_file 9\n",
			[figures]int64{2, 1, 3, 4, none}, true, ""},
		{"v1: stops at the last", 1, "total_inactive_file 4\ntotal_cache x\n", [figures]int64{none, none, none, 4, none}, true, ""},
		{"v1: a kernel before 4.3 has no shmem", 1, "total_cache 1\ntotal_rss 2\ntotal_inactive_file 4\n", [figures]int64{2, 1, none, 4, none}, true, ""},
		{"v2: kernel as told", 2, "anon 1\nfile 2\nkernel 30\nkernel_stack 7\nshmem 3\ninactive_file 4\nslab 9\n", [figures]int64{1, 2, 3, 4, 30}, true, ""},
		{"v2: kernel added up", 2, "anon 1\nfile 2\nkernel_stack 7\npagetables 8\npercpu 9\nsock 100\nshmem 3\ninactive_file 4\nslab_reclaimable 50\nslab 60\nworkingset_x 1\n",
			[figures]int64{1, 2, 3, 4, 84}, true, ""},
		{"v2: the last line is cut", 2, "anon 1\nkernel 2\ninactive_file 40", [figures]int64{1, none, none, none, 2}, false, ""},
		{"v2: nothing", 2, "", [figures]int64{none, none, none, none, none}, false, ""},
		{"no number", 2, "anon -1\n", [figures]int64{none, none, none, none, none}, false, `anon: "-1": no number`},
		{"no number", 1, "total_rss\n", [figures]int64{none, none, none, none, none}, false, `total_rss: "": no number`},
		{"too large", 1, "total_rss 9223372036854775808\n", [figures]int64{none, none, none, none, none}, false, `total_rss: "9223372036854775808": no number`},
		{"the largest", 1, "total_rss 9223372036854775807\n", [figures]int64{1<<63 - 1, none, none, none, none}, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r reading
			all, err := r.parse([]byte(tt.text), tt.version)
			got := [figures]int64{none, none, none, none, none}
			for f := range figures {
				if v := r.figure(f); v != nil {
					got[f] = *v
				}
			}
			if got != tt.want || all != tt.all || fmt.Sprint(err) != tt.err && (err != nil || tt.err != "") {
				t.Errorf("%v, %t, %v; want %v, %t, %s", got, all, err, tt.want, tt.all, tt.err)
			}
			if err != nil && !errors.Is(err, errNumber) {
				t.Errorf("%v is not %v", err, errNumber)
			}
		})
	}
}

func TestWorkingSet_AsTheKubelet(t *testing.T) {
	for _, tt := range []struct{ usage, inactive, want int64 }{{100, 30, 70}, {100, 100, 0}, {100, 130, 0}, {100, -1, 100}} {
		r := reading{usage: tt.usage}
		if tt.inactive >= 0 {
			r.set(inactiveFile, tt.inactive)
		}
		if got := r.workingSet(); got != tt.want {
			t.Errorf("%+v: %d", tt, got)
		}
	}
}

func TestParseLimit(t *testing.T) {
	for text, want := range map[string]int64{
		"max\n": 0, "33554432\n": 33554432, "9223372036854771712\n": 0, "9223372036854710272\n": 0, "0\n": 1,
	} {
		if got, err := parseLimit([]byte(text)); got != want || err != nil {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "\n", "-1\n", "1 2\n", "maximum\n"} {
		if got, err := parseLimit([]byte(text)); got != 0 || err == nil {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

func TestParsePressure(t *testing.T) {
	const rest = " avg60=0.81 avg300=5.22 total=3971589836\nfull avg10=7.00 avg60=0.05 avg300=3.19 total=514590998\n"
	for text, want := range map[string]float64{"some avg10=0.41": 0.41, "some avg10=100.00": 100, "some avg10=0.00": 0, "some avg10=12.07": 12.07} {
		if got, ok := parsePressure([]byte(text + rest)); got != want || !ok {
			t.Errorf("%q: %v, %t", text, got, ok)
		}
	}
	for _, text := range []string{"", "some avg10=", "some avg10=1", "some avg10=1.5", "some avg10=101.00", "some avg10=-1.00", "full avg10=1.00", "some avg10=1.00"} {
		whole := text + rest
		if text == "some avg10=1.00" {
			whole = text // without an end it may be cut
		}
		if got, ok := parsePressure([]byte(whole)); ok {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// FuzzParse reads foreign text: it never goes beyond what stands there, and a
// longer file says the same or more.
func FuzzParse(f *testing.F) {
	for name := range stats() {
		f.Add(readStat(f, name), versionOf(name) == 1)
	}
	f.Add([]byte("anon 1\nfile 2\nkernel_stack 7\nslab 60\n"), false)
	f.Add([]byte("some avg10=0.41 avg60=0.81\n"), false)
	f.Add([]byte("9223372036854771712\n"), true)
	f.Fuzz(func(t *testing.T, text []byte, v1 bool) {
		version := 2
		if v1 {
			version = 1
		}
		var r reading
		all, err := r.parse(text, version)
		if err != nil && all {
			t.Error("all, and an error")
		}
		for fig := range figures {
			v := r.figure(fig)
			if v != nil && (*v < 0 || fig != kernel && !strings.Contains(string(text), fmt.Sprint(*v))) {
				t.Errorf("figure %d is %d", fig, *v)
			}
		}
		if all {
			var again reading
			if more, err := again.parse(append(text[:len(text):len(text)], "x 1\ncut"...), version); !more || err != nil || again != r {
				t.Errorf("with more text: %+v, %t, %v; want %+v", again, more, err, r)
			}
		}
		if p, ok := parsePressure(text); ok && (p < 0 || p > 101) {
			t.Errorf("pressure %v", p)
		}
		if n, err := parseLimit(text); n < 0 || err != nil && n != 0 {
			t.Errorf("limit %d, %v", n, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for name := range stats() {
		text := readStat(b, name)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var r reading
				if all, err := r.parse(text, versionOf(name)); !all || err != nil {
					b.Fatal(all, err)
				}
			}
		})
	}
}
