// SPDX-License-Identifier: Apache-2.0

// Package replay runs the flow from a kernel log to verdicts over real logs,
// and holds it against what the test programs that made them knew.
package replay

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/death"
	"github.com/coroner-dev/coroner/internal/inquest"
	"github.com/coroner-dev/coroner/internal/signal"
	"github.com/coroner-dev/coroner/internal/source/kmsg"
)

const corpus = "../../internal/parse/oomreport/testdata"

// deaths explains one log.
func deaths(t *testing.T, path string) []death.Death {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	q := inquest.New(inquest.Options{})
	var out []death.Death
	take := func(ds []death.Death) {
		for _, d := range ds {
			if i := slices.IndexFunc(out, func(o death.Death) bool { return o.ID == d.ID }); i >= 0 {
				out[i] = d
				continue
			}
			out = append(out, d)
		}
	}
	if _, err := kmsg.ReadFile(f, kmsg.FileOptions{}, func(s signal.Signal) {
		s.Observed = s.Time
		q.Tick(s.Observed)
		q.Feed(s)
		take(q.Take())
	}); err != nil {
		t.Fatal(err)
	}
	take(q.Close())
	return out
}

// truth is what the program that made a kill knew.
type truth struct {
	Constraint  string `json:"constraint"`
	LimitCgroup string `json:"limit_cgroup"`
	Lost        int    `json:"kmsg_lost"`
	Kills       []struct {
		PID      int    `json:"pid"`
		Cgroup   string `json:"cgroup"`
		KilledBy string `json:"killed_by"`
		Shares   []int  `json:"shares_mm_with"`
	} `json:"kills"`
}

// TestCorpus_Causes: each process that the kernel killed is in one death, and
// the cause is that of the limit that the test program set.
func TestCorpus_Causes(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(corpus, "kmsg", "*.kmsg"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".kmsg")
		t.Run(name, func(t *testing.T) {
			var want truth
			text, err := os.ReadFile(strings.TrimSuffix(file, ".kmsg") + ".json")
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			got := deaths(t, file)
			for _, d := range got {
				t.Logf("%s %s %s %s", d.Subject, d.Cause, d.Confidence, d.Summary)
			}
			shared := false
			pids, wantPIDs := map[int]bool{}, map[int]bool{}
			for _, d := range got {
				for _, p := range d.Processes {
					if pids[p.PID] {
						t.Errorf("pid %d is in two deaths or twice in one", p.PID)
					}
					pids[p.PID] = true
				}
			}
			for _, k := range want.Kills {
				switch {
				case k.KilledBy != "oom":
				case len(k.Shares) == 0:
					wantPIDs[k.PID] = true
				default: // the log names one of those that share memory
					for _, pid := range append(k.Shares, k.PID) {
						if pids[pid] {
							wantPIDs[pid], shared = true, true
						}
					}
				}
			}
			if strings.Contains(name, "shared-mm") && !shared {
				t.Errorf("none of those that share memory is among the dead")
			}
			if diff := cmp.Diff(wantPIDs, pids); diff != "" && want.Lost == 0 {
				t.Errorf("killed (-want +got):\n%s", diff)
			}
			for i := range got {
				checkCause(t, &want, &got[i])
			}
		})
	}
}

// checkCause holds the cause against the limit that the test program set.
func checkCause(t *testing.T, want *truth, d *death.Death) {
	t.Helper()
	var causes []death.Cause
	last := want.LimitCgroup[strings.LastIndexByte(want.LimitCgroup, '/')+1:]
	switch {
	case d.OOM.OOMMemcg == "" && (d.OOM.Constraint == "" || want.Constraint == "CONSTRAINT_MEMCG"):
		causes = []death.Cause{death.Unknown} // rate limited, or a path longer than the kernel prints
	case want.Constraint == "CONSTRAINT_NONE":
		causes = []death.Cause{death.OOMNode}
	case want.Constraint == "CONSTRAINT_CPUSET":
		causes = []death.Cause{death.OOMCpuset}
	case strings.Contains(last, "3f1c9a5e7b2d") || strings.Contains(last, "a7e6d5c4b3a2"):
		causes = []death.Cause{death.OOMContainerLimit}
	case strings.Contains(last, "pod6b3f0c1e"):
		// The log does not tell the container's limit.
		causes = []death.Cause{death.OOMPodLimit, death.OOMContainerLimit}
		if d.Confidence == death.Certain {
			t.Errorf("%s is told as certain, and the log does not say what the container's limit is", d.Cause)
		}
	default:
		causes = []death.Cause{death.OOMAncestorLimit}
	}
	if !slices.Contains(causes, d.Cause) {
		t.Errorf("cause %s, want one of %v: %s", d.Cause, causes, d.Summary)
	}
}

// TestCorpus_Public: the logs that people pasted give the number of processes
// that a careful reader counts.
func TestCorpus_Public(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(corpus, "kmsg-public", "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".log")
		t.Run(name, func(t *testing.T) {
			var want struct {
				Processes  int   `json:"processes_killed"`
				AlsoAccept []int `json:"also_accept"`
				Kills      []struct {
					PID         int    `json:"pid"`
					ContainerID string `json:"container_id"`
					PodUID      string `json:"pod_uid"`
					Unit        string `json:"unit"`
				} `json:"kills"`
			}
			text, err := os.ReadFile(strings.TrimSuffix(file, ".log") + ".json")
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			got := deaths(t, file)
			of := map[int]death.Death{}
			n := 0
			for _, d := range got {
				t.Logf("%s %s %s %s", d.Subject, d.Cause, d.Confidence, d.Summary)
				for _, p := range d.Processes {
					of[p.PID] = d
					n++
				}
			}
			if n != want.Processes && !slices.Contains(want.AlsoAccept, n) {
				t.Errorf("processes killed = %d, want %d or one of %v", n, want.Processes, want.AlsoAccept)
			}
			for _, k := range want.Kills {
				d, ok := of[k.PID]
				if !ok {
					t.Errorf("pid %d is in no death", k.PID)
					continue
				}
				var id, uid string
				if d.Container != nil {
					id = d.Container.ID
					if d.Container.Pod != nil {
						uid = d.Container.Pod.UID
					}
				}
				if id != k.ContainerID || (id != "" && uid != k.PodUID) || (id == "" && d.Unit != k.Unit) {
					t.Errorf("pid %d: container %q pod %q unit %q, want %q %q %q", k.PID, id, uid, d.Unit, k.ContainerID, k.PodUID, k.Unit)
				}
			}
		})
	}
}
