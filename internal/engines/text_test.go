// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"strings"
	"testing"
)

func TestPick_Bounds(t *testing.T) {
	all := map[string]string{
		"io.kubernetes.big":  strings.Repeat("x", 64<<10),
		"io.kubernetes.bad":  "a\xff\xfeb\nc",
		"io.kubernetes.cut":  strings.Repeat("x", MaxLabelValue-1) + "é",
		"io.kubernetes.name": "v",
		"io.kubernetes." + strings.Repeat("n", MaxLabelName): "v",
		"other": "v",
	}
	got, lost := SelectionOf(DefaultLabels()).Pick(all)
	if len(got) != 4 || lost != 3 {
		t.Errorf("%d labels, %d lost; want 4 and 3", len(got), lost)
	}
	if n := len(got["io.kubernetes.big"]); n != MaxLabelValue {
		t.Errorf("big label: %d bytes", n)
	}
	if n := len(got["io.kubernetes.cut"]); n != MaxLabelValue-1 {
		t.Errorf("label cut within a character: %d bytes", n)
	}
	if v := got["io.kubernetes.bad"]; v != "a?b\nc" {
		t.Errorf("label with bad UTF-8: %q", v)
	}
	many := map[string]string{}
	for i := range 200 {
		many["io.kubernetes."+string(rune('a'+i%26))+strings.Repeat("z", i)] = "v"
	}
	if got, lost := SelectionOf(DefaultLabels()).Pick(many); len(got) != MaxLabels || lost != 200-MaxLabels {
		t.Errorf("%d labels, %d lost", len(got), lost)
	}
}

func TestSignalNumber(t *testing.T) {
	for in, want := range map[string]int{
		"": 0, "15": 15, "SIGTERM": 15, "term": 15, "SIGKILL": 9, "SIGRTMIN+3": 37, "RTMAX-1": 63, "0": 0, "-9": 0, "65": 0, "TERM+1": 0, "RTMIN+99": 0, "SIG": 0,
	} {
		if got := SignalNumber(in); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}
