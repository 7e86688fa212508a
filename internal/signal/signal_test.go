// SPDX-License-Identifier: Apache-2.0

package signal

import "testing"

func TestKill_IsFault(t *testing.T) {
	own, other := Task{PID: 7, TID: 8}, Task{PID: 7, TID: 7}
	for _, tt := range []struct {
		name string
		kill Kill
		want bool
	}{
		{"wrong address", Kill{Target: own, Sender: own, Signal: 11, Code: 1}, true},
		{"protection fault", Kill{Target: own, Sender: own, Signal: 11, Code: CodeKernel}, true},
		{"full tmpfs", Kill{Target: own, Sender: own, Signal: 7, Code: 2}, true},
		{"sent by itself", Kill{Target: own, Sender: own, Signal: 11, Code: -6}, false},
		{"sent by another thread", Kill{Target: own, Sender: other, Signal: 11, Code: 1}, false},
		{"a memory error found by the kernel", Kill{Target: own, Sender: Task{PID: 2, TID: 2}, Signal: 7, Code: 5}, false},
		{"CPU time is up", Kill{Target: own, Sender: own, Signal: 24, Code: CodeKernel}, false},
		{"OOM kill of who asked", Kill{Target: own, Sender: own, Signal: 9, Code: CodeKernel}, false},
		{"tasks not known", Kill{Signal: 11, Code: 1}, false},
	} {
		if got := tt.kill.IsFault(); got != tt.want {
			t.Errorf("%s: IsFault() = %v, want %v", tt.name, got, tt.want)
		}
	}
}
