// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func bytes(n int64) *int64 { return &n }

// TestParseEviction: messages of a real kubelet (1.34.4), and those that its
// source can make.
func TestParseEviction(t *testing.T) {
	for _, tc := range []struct {
		message string
		want    Eviction
	}{
		{"The node was low on resource: memory. Threshold quantity: 13193Mi, available: 9701996Ki. Container main was using 5812560Ki, request is 0, has larger consumption of memory. ",
			Eviction{Resource: "memory", ThresholdBytes: bytes(13193 << 20), AvailableBytes: bytes(9701996 << 10), Users: []User{{"main", bytes(5812560 << 10), bytes(0)}}}},
		{"The node was low on resource: ephemeral-storage. Container a was using 1.5Gi, request is 1Mi, has larger consumption of ephemeral-storage. Container b was using 2M, request is 0, has larger consumption of ephemeral-storage. ",
			Eviction{Resource: "ephemeral-storage", Users: []User{{"a", bytes(3 << 29), bytes(1 << 20)}, {"b", bytes(2e6), bytes(0)}}}},
		{"The node was low on resource: inodes. Threshold quantity: 5, available: 3. ", Eviction{Resource: "inodes", ThresholdBytes: bytes(5), AvailableBytes: bytes(3)}},
		{"The node was low on resource: pids. ", Eviction{Resource: "pids"}},
		{`Container web exceeded its local ephemeral storage limit "1Mi". `, Eviction{Resource: "ephemeral-storage", OwnLimit: true}},
		{"Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ", Eviction{Resource: "ephemeral-storage", OwnLimit: true}},
		{`Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". `, Eviction{Resource: "ephemeral-storage", OwnLimit: true}},
		{"Pod was rejected: The node had condition: [MemoryPressure]. ", Eviction{Resource: "memory"}},
		{"The node had condition: [DiskPressure]. ", Eviction{Resource: "ephemeral-storage"}},
	} {
		got, ok := ParseEviction(tc.message)
		if diff := cmp.Diff(tc.want, got); !ok || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", tc.message, ok, diff)
		}
	}
	for _, none := range []string{"", "Pod was terminated in response to imminent node shutdown.", "Preempted in order to admit critical pod", "The node was low on resource: patience. "} {
		if got, ok := ParseEviction(none); ok {
			t.Errorf("%q: %+v, want none", none, got)
		}
	}
}

func TestProbe(t *testing.T) {
	for message, want := range map[string][2]string{
		"Container main failed liveness probe, will be restarted": {"liveness", "main"},
		"Container a-b failed startup probe, will be restarted":   {"startup", "a-b"},
		"Container main failed liveness probe":                    {"liveness", "main"},
		"Stopping container main":                                 {},
		"Init container proxy failed liveness probe":              {"liveness", "proxy"},
		"Init container proxy failed startup probe":               {"startup", "proxy"},
		"Container main definition changed, will be restarted":    {},
		"main failed liveness probe":                              {},
	} {
		if kind, name := Probe(message); [2]string{kind, name} != want {
			t.Errorf("%q: %q of %q, want %q", message, kind, name, want)
		}
	}
	kind, found, ok := FailedProbe("Liveness probe failed: HTTP probe failed with statuscode: 500")
	if kind != "liveness" || found != "HTTP probe failed with statuscode: 500" || !ok {
		t.Errorf("%q %q %v", kind, found, ok)
	}
}

func FuzzParseEviction(f *testing.F) {
	f.Add("The node was low on resource: memory. Threshold quantity: 13193Mi, available: 9701996Ki. Container main was using 5812560Ki, request is 0, has larger consumption of memory. ")
	f.Add("Threshold quantity: 1e999999999Ei, available: ")
	f.Fuzz(func(t *testing.T, s string) {
		e, ok := ParseEviction(s)
		if ok != (e.Resource != "") || len(e.Users) > maxUsers {
			t.Errorf("%+v %v", e, ok)
		}
		_, _ = Probe(s)
		_, _, _ = FailedProbe(s)
	})
}

func TestStopping(t *testing.T) {
	for text, want := range map[string]bool{"Stopping container main": true, "FailedPostStartHook": true, "Container main failed liveness probe, will be restarted": false, "": false} {
		if Stopping(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

func TestReplaced(t *testing.T) {
	for text, want := range map[string]bool{
		"Container main definition changed, will be restarted": true, "Init container proxy definition changed": true, "Container main resize requires restart": true,
		"Stopping container main": false, "Container main failed liveness probe, will be restarted": false, "main definition changed": false, "": false,
	} {
		if got := Replaced(text); (got != "") != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestSystemOOM(t *testing.T) {
	for text, want := range map[string]int{
		"(combined from similar events): System OOM encountered, victim process: java, pid: 4711": 4711,
		"System OOM encountered, victim process: java, pid: 4711":                                 4711,
		"System OOM encountered, victim process: x, pid: 1, pid: 4711":                            4711,
		"System OOM encountered":                                                  0,
		"System OOM encountered, victim process: java, pid: -1":                   0,
		"System OOM encountered, victim process: java, pid: 99999999999999999999": 0,
		"victim process: java, pid: 4711":                                         0,
	} {
		if got, ok := SystemOOM(text); got != want && ok || ok != (want != 0) {
			t.Errorf("%q: %d %v", text, got, ok)
		}
	}
}
