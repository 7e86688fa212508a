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

// TestValidID: ids of any length and content; none gets into an address that
// means something else there.
func TestValidID(t *testing.T) {
	for id, want := range map[string]bool{
		"": false, "a": true, ".": false, "..": false, "...": false, "a.b": true, "web_1-x": true, "/": false, "a/b": false, "../a": false, "a%2fb": false,
		"a?b": false, "a#b": false, "a b": false, "a\nb": false, "a\x00": false, "é": false, "\xff": false, "\u202e": false, `a"b`: false,
		strings.Repeat("a", 12): true, strings.Repeat("0", 63): true, strings.Repeat("0", 64): true, strings.Repeat("0", 65): true,
		strings.Repeat("a", MaxID): true, strings.Repeat("a", MaxID+1): false, strings.Repeat("a", 64<<10): false,
	} {
		if got := ValidID(id); got != want {
			t.Errorf("%.40q of %d bytes: %v, want %v", id, len(id), got, want)
		}
	}
}

func TestWorkload_Bounds(t *testing.T) {
	w := Workload("x", map[string]string{"com.docker.compose.project": strings.Repeat("p\n", 32<<10), "com.docker.compose.service": "s\xff\""})
	if w == nil || len(w.Group) != MaxName || w.Name != `s?"` {
		t.Errorf("got %+v", w)
	}
}

// TestUserOf: whose an engine is, by the folder that the system makes.
func TestUserOf(t *testing.T) {
	for path, want := range map[string]string{
		"/run/user/1000/docker.sock": "1000", "/run/user/0/docker.sock": "0", "/run/user/x/docker.sock": unknownUser,
		"/run/user/-1/docker.sock": unknownUser, "/run/user/1000/podman/podman.sock": unknownUser, "/run/user/../docker.sock": unknownUser,
	} {
		if got := userOf("/run/user/*/docker.sock", path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
