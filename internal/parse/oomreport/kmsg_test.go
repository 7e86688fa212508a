// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"encoding/hex"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coroner-dev/coroner/internal/death"
)

// kmsgTruth is what the test program that made testdata/kmsg knew by itself
// (README.md there).
type kmsgTruth struct {
	Case        string     `json:"case"`
	Constraint  string     `json:"constraint"`
	LimitCgroup string     `json:"limit_cgroup"`
	LimitBytes  int64      `json:"limit_bytes"`
	Kills       []kmsgKill `json:"kills"`
	Survivors   []kmsgKill `json:"survivors"`
	TriggerPIDs []int      `json:"trigger_pids"`
	KilledLines int        `json:"kmsg_killed_process_lines"`
	OOMLines    int        `json:"kmsg_oom_kill_lines"`
	Lost        int        `json:"kmsg_lost"`
	Sysctl      struct {
		DumpTasks int `json:"vm.oom_dump_tasks"`
	} `json:"sysctl"`
}

type kmsgKill struct {
	PID      int    `json:"pid"`
	CommHex  string `json:"comm_hex"`
	Role     string `json:"role"`
	Cgroup   string `json:"cgroup"`
	UID      int64  `json:"uid"`
	Adj      int    `json:"oom_score_adj"`
	TotalVM  int64  `json:"total_vm_kb"`
	Anon     int64  `json:"anon_rss_kb"`
	File     int64  `json:"file_rss_kb"`
	Shmem    int64  `json:"shmem_rss_kb"`
	Pgtables int64  `json:"pgtables_kb"`
	Exact    bool   `json:"figures_exact"`
	Sharers  []int  `json:"shares_mm_with"`
	KilledBy string `json:"killed_by"`
}

func (k *kmsgKill) comm(t *testing.T) string {
	t.Helper()
	b, err := hex.DecodeString(k.CommHex)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParser_KernelLogs(t *testing.T) {
	logs, err := filepath.Glob("testdata/kmsg/*.kmsg")
	if err != nil || len(logs) != 206 {
		t.Fatalf("got %d logs (%v), want 206", len(logs), err)
	}
	for _, name := range logs {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".kmsg"), func(t *testing.T) {
			var want kmsgTruth
			readJSON(t, strings.TrimSuffix(name, ".kmsg")+".json", &want)
			checkKmsg(t, parse(t, readFile(t, name)), &want)
		})
	}
}

func checkKmsg(t *testing.T, events []Event, want *kmsgTruth) {
	t.Helper()
	all, got := kills(events), deaths(events)
	if len(all) != want.KilledLines {
		t.Errorf("got %d kill lines, want %d", len(all), want.KilledLines)
	}
	truth := map[int]*kmsgKill{}
	for i := range want.Kills {
		k := &want.Kills[i]
		if k.KilledBy == "oom" {
			truth[k.PID] = k
		}
	}
	if len(got) != len(truth) {
		t.Errorf("got %d processes killed, want %d", len(got), len(truth))
	}
	inGroup := groups(events)
	contexts := map[uint64]bool{}
	for _, k := range got {
		w := truth[k.PID]
		if w == nil {
			w = sharerOf(want, k.PID)
		}
		if w == nil {
			t.Errorf("invented pid %d", k.PID)
			continue
		}
		checkKill(t, k, w, want)
		checkContext(t, k, w, want)
		if k.Report != nil {
			contexts[k.ReportID] = true
		}
		if _, grouped := inGroup[k.ReportID]; w.Role == "group-member" && (!grouped || k.Report == nil || !k.Group) {
			t.Errorf("pid %d: not known as a group's member", k.PID)
		}
	}
	if len(contexts) != want.OOMLines {
		t.Errorf("got %d reports with context, want %d", len(contexts), want.OOMLines)
	}
	if strings.HasPrefix(want.Case, "oom-group") != (len(inGroup) > 0) {
		t.Errorf("got groups %v in case %s", inGroup, want.Case)
	}
}

// sharerOf finds the victim that the log may name instead of the truth's: they
// share their memory. The name is then either's.
func sharerOf(want *kmsgTruth, pid int) *kmsgKill {
	for i := range want.Kills {
		if slices.Contains(want.Kills[i].Sharers, pid) {
			k := want.Kills[i]
			k.PID, k.CommHex = pid, hex.EncodeToString([]byte("vmshare"))
			return &k
		}
	}
	return nil
}

func checkKill(t *testing.T, k *Kill, w *kmsgKill, want *kmsgTruth) {
	t.Helper()
	if comm := w.comm(t); k.Comm != comm {
		t.Errorf("pid %d: got comm %q, want %q", k.PID, k.Comm, comm)
	}
	if k.UID == nil || *k.UID != w.UID {
		t.Errorf("pid %d: got uid %v, want %d", k.PID, k.UID, w.UID)
	}
	if k.OOMScoreAdj == nil || *k.OOMScoreAdj != w.Adj {
		t.Errorf("pid %d: got oom_score_adj %v, want %d", k.PID, k.OOMScoreAdj, w.Adj)
	}
	if k.Memcg == k.Global || k.Memcg != (want.Constraint == "CONSTRAINT_MEMCG") {
		t.Errorf("pid %d: got memcg %v, global %v under %s", k.PID, k.Memcg, k.Global, want.Constraint)
	}
	for _, f := range []struct {
		name string
		got  *int64
		want int64
	}{
		{"total-vm", k.TotalVMBytes, w.TotalVM}, {"anon-rss", k.AnonRSSBytes, w.Anon},
		{"file-rss", k.FileRSSBytes, w.File}, {"shmem-rss", k.ShmemRSSBytes, w.Shmem},
		{"pgtables", k.PgtablesBytes, w.Pgtables},
	} {
		if f.got == nil {
			t.Errorf("pid %d: no %s", k.PID, f.name)
			continue
		}
		const tolerance = 150 // kB; README: per-CPU counting, up to about 100
		d := *f.got>>10 - f.want
		if d < -tolerance || w.Exact && d > tolerance {
			t.Errorf("pid %d: got %s %d kB, want %d (exact: %v)", k.PID, f.name, *f.got>>10, f.want, w.Exact)
		}
	}
}

func checkContext(t *testing.T, k *Kill, w *kmsgKill, want *kmsgTruth) {
	t.Helper()
	r := k.Report
	if r == nil {
		if k.TaskMemcg != "" {
			t.Errorf("pid %d: cgroup %q without context", k.PID, k.TaskMemcg)
		}
		if !strings.HasPrefix(want.Case, "ratelimited") {
			t.Errorf("pid %d: no context", k.PID)
		}
		return
	}
	if r.Constraint != want.Constraint {
		t.Errorf("pid %d: got %s, want %s", k.PID, r.Constraint, want.Constraint)
	}
	if want.Case == "sysrq-f" {
		if r.Order == nil || *r.Order != -1 || !strings.HasPrefix(r.TriggerComm, "kworker/") {
			t.Errorf("pid %d: got order %v by %q, want -1 by a kworker", k.PID, r.Order, r.TriggerComm)
		}
	} else if !slices.Contains(want.TriggerPIDs, r.TriggerPID) {
		t.Errorf("pid %d: got trigger %d (%q), want one of %v", k.PID, r.TriggerPID, r.TriggerComm, want.TriggerPIDs)
	}
	if cut := len(want.LimitCgroup) > 1000 && want.Case == "long-path-1500"; cut {
		if !r.PathCut || r.OOMMemcg != "" || k.TaskMemcg != "" {
			t.Errorf("pid %d: cut paths given out (cut %v): %.40q %.40q", k.PID, r.PathCut, r.OOMMemcg, k.TaskMemcg)
		}
	} else {
		if limits := strings.Split(want.LimitCgroup, " and "); !slices.Contains(limits, r.OOMMemcg) {
			t.Errorf("pid %d: got limit of %q, want %q", k.PID, r.OOMMemcg, want.LimitCgroup)
		}
		// The context names one victim's cgroup, not that of a group's others.
		if member := k.PID != r.VictimPID; member && k.TaskMemcg != "" || !member && k.TaskMemcg != w.Cgroup {
			t.Errorf("pid %d: got cgroup %q, want %q", k.PID, k.TaskMemcg, w.Cgroup)
		}
		if r.PathCut {
			t.Errorf("pid %d: path said to be cut", k.PID)
		}
	}
	if want.LimitBytes != 0 {
		if r.Memory == nil || r.Memory.LimitBytes == nil || *r.Memory.LimitBytes != want.LimitBytes {
			t.Errorf("pid %d: got memory %+v, want limit %d", k.PID, r.Memory, want.LimitBytes)
		}
		if len(r.MemoryStat) < 10 {
			t.Errorf("pid %d: got %d counters of memory.stat", k.PID, len(r.MemoryStat))
		}
	} else if r.Memory != nil {
		t.Errorf("pid %d: memory %+v of a machine-wide report", k.PID, r.Memory)
	}
	checkTasks(t, k, w, want)
}

func checkTasks(t *testing.T, k *Kill, w *kmsgKill, want *kmsgTruth) {
	t.Helper()
	tasks := k.Report.Tasks
	if want.Sysctl.DumpTasks == 0 {
		if len(tasks) != 0 {
			t.Errorf("got %d tasks with oom_dump_tasks=0", len(tasks))
		}
		return
	}
	i := slices.IndexFunc(tasks, func(r death.Task) bool { return r.PID == k.PID })
	if i < 0 {
		t.Errorf("pid %d is not among its report's %d tasks", k.PID, len(tasks))
		return
	}
	row := tasks[i]
	if row.Name != w.comm(t) || row.UID != w.UID || row.OOMScoreAdj == nil || *row.OOMScoreAdj != w.Adj {
		t.Errorf("pid %d: got row %+v, want %q, uid %d, adj %d", k.PID, row, w.comm(t), w.UID, w.Adj)
	}
	// The kernel prints both figures of the same moment; pages have 4 KiB here.
	if row.TotalVMPages<<12 != *k.TotalVMBytes {
		t.Errorf("pid %d: got %d pages in the table, %d bytes in the kill line", k.PID, row.TotalVMPages, *k.TotalVMBytes)
	}
}
