// SPDX-License-Identifier: Apache-2.0

package kernlog

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// seeds gives the logs of package oomreport's corpus.
func seeds(f *testing.F, pattern string) [][]byte {
	f.Helper()
	names, err := filepath.Glob(filepath.Join("..", "oomreport", "testdata", pattern))
	if err != nil || len(names) == 0 {
		f.Fatalf("%s: %d files, %v", pattern, len(names), err)
	}
	var out [][]byte
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func FuzzParseKmsg(f *testing.F) {
	for _, log := range seeds(f, "kmsg/6.1*odd-comm*.kmsg") {
		for line := range bytes.Lines(log) {
			f.Add(line)
		}
	}
	f.Add([]byte("6,1,2,c,caller=T1,x;a\\x0a\n SUBSYSTEM=x\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		was := bytes.Clone(raw)
		rec, err := ParseKmsg(raw)
		if !bytes.Equal(raw, was) {
			t.Error("the input was changed")
		}
		if err != nil {
			if diff := cmp.Diff(Record{}, rec); diff != "" {
				t.Errorf("an error and a record:\n%s", diff)
			}
			return
		}
		if len(rec.Text) > len(raw) || !rec.HasSeq || rec.Stamp < 0 || rec.Facility < 0 || rec.Level < 0 || rec.Level > 7 {
			t.Errorf("got %+v", rec)
		}
	})
}

func FuzzLines(f *testing.F) {
	for _, log := range seeds(f, "kmsg-public/*.log") {
		f.Add(log)
	}
	f.Add([]byte(`{"MESSAGE":[97,10],"_TRANSPORT":"kernel","PRIORITY":"3","X":{}}` + "\n\x1e{}"))
	f.Add([]byte("kern  :err   : 2024-05-09T14:52:38,000000+00:00 x\n<3>1 2024-05-09T14:52:38Z h kernel - - [a b=\"\\\"]\"] x\n9月 3 05:57:48 h kernel: a#012"))
	f.Fuzz(func(t *testing.T, log []byte) {
		was := bytes.Clone(log)
		run := func() []Record {
			l := Lines{Now: now()}
			var out []Record
			for _, line := range bytes.Split(log, []byte{'\n'}) {
				rec, ok := l.Feed(line)
				if !ok {
					continue
				}
				if len(rec.Text) > len(line) || rec.Facility > 0 || rec.Level > 7 || rec.Stamp < 0 {
					t.Errorf("%q: got %+v", line, rec)
				}
				rec.Text, rec.Caller = bytes.Clone(rec.Text), bytes.Clone(rec.Caller)
				out = append(out, rec)
			}
			return out
		}
		if first, again := run(), run(); !reflect.DeepEqual(first, again) {
			t.Errorf("the same log, other records:\n%s", cmp.Diff(first, again))
		}
		if !bytes.Equal(log, was) {
			t.Error("the input was changed")
		}
	})
}
