// SPDX-License-Identifier: Apache-2.0

package containerlog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var (
	noon   = time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)
	bounds = Bounds{Lines: 64, Bytes: 1024, Kept: 16}
)

// written is one thing that a container wrote, as the test remembers it.
type written struct {
	stream, text string
	more         bool
	at           time.Time
}

// form writes a log in one of the forms, as its engine does.
type form struct {
	name  string
	write func(written) []byte
}

func forms() []form {
	return []form{{"json-file", jsonFile}, {"cri", cri}, {"local", local}}
}

func jsonFile(w written) []byte {
	text := w.text
	if !w.more {
		text += "\n"
	}
	b, err := json.Marshal(map[string]string{"log": text, "stream": w.stream, "time": w.at.Format(time.RFC3339Nano)})
	if err != nil {
		panic(err)
	}
	return append(b, '\n')
}

func cri(w written) []byte {
	tag := "F"
	if w.more {
		tag = "P"
	}
	return fmt.Appendf(nil, "%s %s %s %s\n", w.at.Format(time.RFC3339Nano), w.stream, tag, w.text)
}

// local writes what daemon/logger/local of Docker does, without its code.
func local(w written) []byte {
	var m []byte
	blob := func(field byte, b []byte) {
		m = binary.AppendUvarint(append(m, field<<3|2), uint64(len(b)))
		m = append(m, b...)
	}
	blob(1, []byte(w.stream))
	m = binary.AppendUvarint(append(m, 2<<3), uint64(w.at.UnixNano()))
	blob(3, []byte(w.text))
	if w.more {
		m = append(m, 4<<3, 1)
		blob(5, []byte{2<<3 | 2, 1, 'x', 3 << 3, 1})
	}
	size := binary.BigEndian.AppendUint32(nil, uint32(len(m)))
	return append(append(append([]byte(nil), size...), m...), size...)
}

func log(f form, all []written) []byte {
	var b []byte
	for _, w := range all {
		b = append(b, f.write(w)...)
	}
	return b
}

func texts(t Tail) []string {
	var out []string
	for _, l := range t.Lines {
		out = append(out, l.Text)
	}
	return out
}

func TestLast_EachForm(t *testing.T) {
	long := strings.Repeat("x", 16<<10)
	for _, f := range forms() {
		for _, tc := range []struct {
			name string
			says []written
			want []Line
		}{
			{"lines of both streams", []written{{"stdout", "one", false, noon}, {"stderr", "two ü", false, noon.Add(1)}},
				[]Line{{noon, "stdout", "one"}, {noon.Add(1), "stderr", "two ü"}}},
			{"a split line, the other stream between", []written{{"stdout", "a-", true, noon}, {"stderr", "two", false, noon}, {"stdout", "b-", true, noon}, {"stdout", "c", false, noon}},
				[]Line{{noon, "stderr", "two"}, {noon, "stdout", "a-b-c"}}},
			{"a line that never ended", []written{{"stdout", "one", false, noon}, {"stderr", "tail", true, noon}},
				[]Line{{noon, "stdout", "one"}, {noon, "stderr", "tail"}}},
			{"a long line", []written{{"stdout", long, true, noon}, {"stdout", long, true, noon}, {"stdout", "end", false, noon}},
				[]Line{{noon, "stdout", long[:1024]}}},
			{"cut amid a rune", []written{{"stdout", strings.Repeat("x", 1022) + "€", false, noon}},
				[]Line{{noon, "stdout", strings.Repeat("x", 1022)}}},
			{"empty lines and returns", []written{{"stdout", "", false, noon}, {"stdout", " ", false, noon}, {"stdout", "one\r", false, noon}},
				[]Line{{noon, "stdout", "one"}}},
			{"what looks like another form", []written{{"stdout", `{"log":"x\n","stream":"stderr","time":"2026-11-22T12:00:00Z"}`, false, noon}, {"stdout", "2026-11-22T12:00:00Z stderr F x", false, noon}},
				[]Line{{noon, "stdout", `{"log":"x\n","stream":"stderr","time":"2026-11-22T12:00:00Z"}`}, {noon, "stdout", "2026-11-22T12:00:00Z stderr F x"}}},
		} {
			t.Run(f.name+"/"+tc.name, func(t *testing.T) {
				got := Last(log(f, tc.says), true, bounds)
				if diff := cmp.Diff(tc.want, got.Lines); diff != "" || got.Skipped != 0 {
					t.Errorf("%d skipped (-want +got):\n%s", got.Skipped, diff)
				}
			})
		}
	}
}

// TestLast_CutAnywhere: from wherever the window begins, the lines are the
// last ones that were written, whole.
func TestLast_CutAnywhere(t *testing.T) {
	var says []written
	var all []string
	for i := range 20 {
		text := fmt.Sprintf("line %d %s", i, strings.Repeat("é", i))
		says, all = append(says, written{"stdout", text, false, noon.Add(time.Duration(i))}), append(all, text)
	}
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			whole := log(f, says)
			for cut := 1; cut < len(whole); cut++ {
				got := Last(whole[cut:], false, bounds)
				lines := texts(got)
				if diff := cmp.Diff(all[len(all)-len(lines):], lines, cmp.Transformer("nil", func(s []string) []string { return append([]string{}, s...) })); diff != "" {
					t.Fatalf("cut at %d (-want +got):\n%s", cut, diff)
				}
				if len(lines) > 0 { // else the form cannot be told
					before := texts(Last(whole[:cut+got.Rest], true, bounds))
					if diff := cmp.Diff(all, append(before, lines...)); diff != "" {
						t.Fatalf("cut at %d, with what is before (-want +got):\n%s", cut, diff)
					}
				}
				rest := len(whole) - cut
				if last := len(f.write(says[19])); rest > last && len(lines) == 0 {
					t.Fatalf("cut at %d: %d bytes hold a line, none was read", cut, rest)
				}
			}
		})
	}
}

func TestLast_Bounds(t *testing.T) {
	var says []written
	for i := range 200 {
		text := fmt.Sprint("line ", i)
		if i%50 == 0 {
			text = fmt.Sprint("memory ", i)
		}
		says = append(says, written{"stdout", text, false, noon.Add(time.Duration(i) * time.Second)})
	}
	speaks := func(s string) bool { return strings.HasPrefix(s, "memory") }
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			data := log(f, says)
			got := Last(data, true, Bounds{Lines: 3, Bytes: 64, Keep: speaks, Kept: 2})
			if diff := cmp.Diff([]string{"memory 100", "memory 150", "line 197", "line 198", "line 199"}, texts(got)); diff != "" || !got.Kept || got.Begun {
				t.Errorf("kept %v, begun %v (-want +got):\n%s", got.Kept, got.Begun, diff)
			}
			got = Last(data, true, Bounds{Lines: 3, Bytes: 64, Keep: speaks, Kept: 2, Since: noon.Add(101 * time.Second), Until: noon.Add(103 * time.Second)})
			if diff := cmp.Diff([]string{"line 101", "line 102", "line 103"}, texts(got)); diff != "" || got.Kept || !got.Begun {
				t.Errorf("kept %v, begun %v (-want +got):\n%s", got.Kept, got.Begun, diff)
			}
		})
	}
}

// TestLast_Unknown: what is in no form is counted, and hides nothing else.
func TestLast_Unknown(t *testing.T) {
	good := string(jsonFile(written{"stderr", "good", false, noon}))
	for _, tc := range []struct {
		name    string
		data    string
		whole   bool
		want    []string
		skipped int
	}{
		{"nothing", "", true, nil, 0},
		{"plain text", "hello\nworld\n", true, nil, 2},
		{"one line without an end, cut", strings.Repeat("x", 256<<10), false, nil, 1},
		{"zeros, as a crashed machine leaves them", strings.Repeat("\x00", 4096), true, nil, 1},
		{"zeros amid", good + strings.Repeat("\x00", 64) + "\n" + good, true, []string{"good", "good"}, 1},
		{"half a line at the end", good + good[:20], true, []string{"good"}, 1},
		{"other JSON", `{"level":"info","msg":"x"}` + "\n" + good, true, []string{"good"}, 1},
		{"no stream that there is", `{"log":"x\n","stream":"stdin","time":"2026-11-22T12:00:00Z"}` + "\n" + good, true, []string{"good"}, 1},
		{"no time", `{"log":"x\n","stream":"stdout"}` + "\n" + good, true, []string{"good"}, 1},
		{"a time of no year of ours", "9999-12-31T00:00:00Z stdout F x\n", true, nil, 1},
		{"another tag", "2026-11-22T12:00:00Z stdout X x\n", true, nil, 1},
		{"no tag", "2026-11-22T12:00:00Z stdout\n", true, nil, 1},
		{"podman's zone", "2026-11-22T13:00:00.123456789+01:00 stderr F x\n", true, []string{"x"}, 0},
		{"more tags", "2026-11-22T13:00:00.123456789Z stderr F:new x\n", true, []string{"x"}, 0},
		{"invalid UTF-8", "2026-11-22T13:00:00.123456789Z stderr F a\xffb\n", true, []string{"a?b"}, 0},
		{"a torn local log", string(local(written{"stdout", "one", false, noon})[:20]), true, nil, 2},
		{"local, garbage before", "garbage" + string(local(written{"stdout", "one", false, noon})), true, []string{"one"}, 1},
		{"local, a size that lies", string(local(written{"stdout", "one", false, noon})) + "\xff\xff\xff\xff", true, nil, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Last([]byte(tc.data), tc.whole, bounds)
			if diff := cmp.Diff(tc.want, texts(got)); diff != "" || got.Skipped != tc.skipped {
				t.Errorf("%d skipped, want %d (-want +got):\n%s", got.Skipped, tc.skipped, diff)
			}
		})
	}
}

func FuzzLast(f *testing.F) {
	for _, x := range forms() {
		f.Add(log(x, []written{{"stdout", "one", false, noon}, {"stderr", "two", true, noon}, {"stderr", "three", false, noon}}), true, uint8(3), uint16(8))
	}
	f.Add([]byte("2016-10-06T00:17:09.669794202Z stderr F \xe2\x82"), false, uint8(1), uint16(2))
	f.Fuzz(func(t *testing.T, data []byte, whole bool, lines uint8, most uint16) {
		before := bytes.Clone(data)
		keep := func(s string) bool { return strings.Contains(s, "e") }
		got := Last(data, whole, Bounds{Lines: int(lines), Bytes: int(most), Keep: keep, Kept: 2, Since: noon.Add(-time.Hour), Until: noon.Add(time.Hour)})
		if !bytes.Equal(before, data) {
			t.Fatal("it wrote to what it read")
		}
		if got.Rest < 0 || got.Rest > len(data) || whole && got.Rest == len(data) && len(data) > 0 && len(got.Lines) > 0 {
			t.Fatalf("rest of %d bytes: %d", len(data), got.Rest)
		}
		if len(got.Lines) > int(lines)+2 {
			t.Fatalf("%d lines, want at most %d", len(got.Lines), int(lines)+2)
		}
		for _, l := range got.Lines {
			if len(l.Text) > 3*int(most) || l.Text == "" || !utf8.ValidString(l.Text) || l.Stream != stdout && l.Stream != stderr {
				t.Fatalf("line %+v", l)
			}
			if l.Time.Sub(noon).Abs() > time.Hour {
				t.Fatalf("line %+v is out of bounds", l)
			}
		}
	})
}

// TestLast_Real reads logs that real engines kept of one script, say.sh in
// testdata: Docker 20.10.24's json-file and local drivers, podman 4.3.1's
// k8s-file.
func TestLast_Real(t *testing.T) {
	want := map[string][]string{
		stdout: {"one", strings.Repeat("y", 1024), "\x1b[31mred\x1b[0m \"quoted\" \\ <tag>", "bad ? byte", "no end"},
		stderr: {"two ü €"},
	}
	for _, name := range []string{"docker-json-file.log", "docker-local.log", "podman-k8s-file.log"} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			for _, whole := range []bool{true, false} {
				tail := Last(data, whole, bounds)
				got := map[string][]string{}
				for _, l := range tail.Lines {
					got[l.Stream] = append(got[l.Stream], strings.ReplaceAll(l.Text, "\ufffd", "?")) // json-file replaces it itself
					if l.Time.Year() != 2026 {
						t.Errorf("line of %v", l.Time)
					}
				}
				if whole || strings.Contains(name, "local") { // else the first line may be cut
					if diff := cmp.Diff(want, got); diff != "" || tail.Skipped != 0 {
						t.Errorf("%d skipped (-want +got):\n%s", tail.Skipped, diff)
					}
				}
			}
		})
	}
}
