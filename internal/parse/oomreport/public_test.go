// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coroner-dev/coroner/internal/parse/kernlog"
)

// publicTruth is the JSON beside each log of testdata/kmsg-public (README.md
// there). Names and paths that only package cgpath can tell are not compared.
type publicTruth struct {
	Kills           []publicKill `json:"kills"`
	ProcessesKilled int          `json:"processes_killed"`
	AlsoAccept      []int        `json:"also_accept"`
}

type publicKill struct {
	PID         int    `json:"pid"`
	Comm        string `json:"comm"`
	UID         *int64 `json:"uid"`
	Constraint  string `json:"constraint"`
	OOMMemcg    string `json:"oom_memcg"`
	TaskMemcg   string `json:"task_memcg"`
	TriggerComm string `json:"trigger_comm"`
	TriggerPID  int    `json:"trigger_pid"`
	TotalVM     *int64 `json:"total_vm_kb"`
	AnonRSS     *int64 `json:"anon_rss_kb"`
	FileRSS     *int64 `json:"file_rss_kb"`
	ShmemRSS    *int64 `json:"shmem_rss_kb"`
	Pgtables    *int64 `json:"pgtables_kb"`
	OOMScoreAdj *int   `json:"oom_score_adj"`
	Usage       *int64 `json:"usage_kb"`
	Limit       *int64 `json:"limit_kb"`
	GroupKill   bool   `json:"group_kill"`
}

// parse runs a log in any framing through both parsers.
func parse(t testing.TB, log []byte) []Event {
	t.Helper()
	var l kernlog.Lines
	var p Parser
	var events []Event
	for _, line := range bytes.Split(log, []byte{'\n'}) {
		if rec, ok := l.Feed(line); ok {
			events = p.Feed(events, rec)
		}
	}
	events = p.Flush(events)
	if p.Dropped != (Dropped{}) {
		t.Errorf("dropped %+v, want nothing", p.Dropped)
	}
	return events
}

func kills(events []Event) []*Kill {
	var out []*Kill
	for _, e := range events {
		if k, ok := e.(*Kill); ok {
			out = append(out, k)
		}
	}
	return out
}

// deaths leaves out the kills that name a pid again.
func deaths(events []Event) []*Kill {
	return slices.DeleteFunc(kills(events), func(k *Kill) bool { return k.Again })
}

// groups gives the reports in which memory.oom.group took part.
func groups(events []Event) map[uint64]string {
	out := map[uint64]string{}
	for _, e := range events {
		if g, ok := e.(*Group); ok {
			out[g.ReportID] = g.Cgroup
		}
	}
	return out
}

func kb(b *int64) *int64 {
	if b == nil {
		return nil
	}
	n := *b >> 10
	return &n
}

// asPublic says what a kill says in the words of the truth. The truth gives
// the context on the victim that the context names, and on no other member of
// its group; those share the report of the victim.
func asPublic(k *Kill, group bool) publicKill {
	out := publicKill{
		PID: k.PID, Comm: k.Comm, UID: k.UID, TaskMemcg: k.TaskMemcg,
		TotalVM: kb(k.TotalVMBytes), AnonRSS: kb(k.AnonRSSBytes), FileRSS: kb(k.FileRSSBytes),
		ShmemRSS: kb(k.ShmemRSSBytes), Pgtables: kb(k.PgtablesBytes), OOMScoreAdj: k.OOMScoreAdj,
		GroupKill: group,
	}
	if r := k.Report; r != nil && !k.Group {
		out.Constraint, out.OOMMemcg = r.Constraint, r.OOMMemcg
		out.TriggerComm, out.TriggerPID = r.TriggerComm, r.TriggerPID
		if r.Memory != nil {
			out.Usage, out.Limit = kb(r.Memory.UsageBytes), kb(r.Memory.LimitBytes)
		}
	}
	return out
}

func TestParser_PublicLogs(t *testing.T) {
	logs, err := filepath.Glob("testdata/kmsg-public/*.log")
	if err != nil || len(logs) != 26 {
		t.Fatalf("got %d logs (%v), want 26", len(logs), err)
	}
	for _, name := range logs {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".log"), func(t *testing.T) {
			log := readFile(t, name)
			var want publicTruth
			readJSON(t, strings.TrimSuffix(name, ".log")+".json", &want)

			events := parse(t, log)
			in := groups(events)
			var got []publicKill
			ids := map[int]uint64{}
			for _, k := range deaths(events) {
				_, group := in[k.ReportID]
				got = append(got, asPublic(k, group))
				ids[k.PID] = k.ReportID
				if k.Group && (k.Report == nil || k.ReportID != ids[want.Kills[0].PID]) {
					t.Errorf("member %d of the group does not share the victim's report", k.PID)
				}
			}
			byPid := func(a, b publicKill) int { return a.PID - b.PID }
			slices.SortFunc(got, byPid)
			slices.SortFunc(want.Kills, byPid)
			if diff := cmp.Diff(want.Kills, got); diff != "" {
				t.Errorf("kills (-want +got):\n%s", diff)
			}
			if len(got) != want.ProcessesKilled {
				t.Errorf("got %d processes killed, want %d", len(got), want.ProcessesKilled)
			}
		})
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readJSON(t testing.TB, name string, v any) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, name), v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
