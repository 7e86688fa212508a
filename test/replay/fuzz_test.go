// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
)

// foreign runs the inquest over a foreign file of signals, as far as it can
// be read, and returns all that it tells.
func foreign(file []byte) (told []death.Death, signals int) {
	r, err := signal.NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, 0
	}
	q := inquest.New(inquest.Options{Node: r.Header.Node, BootID: r.Header.BootID})
	for ; ; signals++ {
		s, err := r.Read()
		if err != nil {
			return append(told, q.Close()...), signals
		}
		q.Tick(s.Observed)
		q.Feed(s)
		told = append(told, q.Take()...)
	}
}

func text(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%+v: %v", v, err)
	}
	return b
}

// FuzzReplay: the same file gives the same deaths, each with an id, a cause
// and a time that can be told on; an amendment has a higher revision; and
// where nothing was seen, nobody died.
func FuzzReplay(f *testing.F) {
	file, err := os.ReadFile("testdata/host-6.18-cgv1-five-ends.signals")
	if err != nil {
		f.Fatal(err)
	}
	lines := bytes.SplitAfter(file, []byte("\n"))
	for i := 1; i < len(lines); i += 8 {
		f.Add(bytes.Join(append([][]byte{lines[0]}, lines[i:min(i+8, len(lines))]...), nil))
	}
	const at = `{"format":"coroner-signals/1","node":"n","boot_id":"b"}
{"time":"2026-03-04T12:00:00Z","observed":"2026-03-04T12:00:00Z","source":`
	for _, s := range []string{
		`"cgroup","kind":"cgroup_counters","body":{"id":7,"path":"/a","oom_kill":18446744073709551615,"since":"9999-12-31T23:59:59-01:00"}}`,
		`"cgroup","kind":"node_counters","body":{"oom_kill":18446744073709551615,"total":1,"counted":"0001-01-01T00:00:00+01:00"}}`,
		`"kmsg","kind":"reported_kill","body":{"report":1,"victim":{"pid":-1,"comm":"\u0000"},"figures":{"anon_rss_bytes":-9223372036854775808},"oom":{"usage_bytes":-1}}}`,
		`"kmsg","kind":"reported_note","body":{"note":"suppressed","count":-9223372036854775808}}`,
		`"tracepoint","kind":"kill","body":{"target":{"pid":7,"cgroup":{"path":"../x"},"init":true},"sender":{"pid":7},"signal":-9,"code":128,"result":0}}`,
		`"tracepoint","kind":"exit","body":{"task":{"pid":7,"cgroup":{"path":"/a"},"init":true},"code":1,"signal":9}}`,
		`"x","kind":"lost","body":{"count":18446744073709551615,"why":""}}`,
	} {
		f.Add([]byte(at + s))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		told, signals := foreign(file)
		if len(told) > 0 && signals == 0 {
			t.Errorf("%d deaths of no signal", len(told))
		}
		revisions := map[string]int{}
		for _, d := range told {
			if d.ID == "" || d.Cause == "" || d.Confidence == "" || d.Summary == "" || d.Revision <= revisions[d.ID] {
				t.Errorf("after revision %d: %+v", revisions[d.ID], d)
			}
			revisions[d.ID] = d.Revision
			var back death.Death
			if err := json.Unmarshal(text(t, d), &back); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(text(t, d), text(t, back)) {
				t.Errorf("after JSON %+v, want %+v", back, d)
			}
		}
		again, _ := foreign(file)
		if !bytes.Equal(text(t, told), text(t, again)) {
			t.Errorf("again (-first +again):\n%s", cmp.Diff(told, again))
		}
	})
}
