// SPDX-License-Identifier: Apache-2.0

package oomreport

import (
	"bytes"

	"github.com/coroner-dev/coroner/internal/death"
)

// column is a column of the task table.
type column uint8

const (
	colOther column = iota // of a name that is not kept: cpu, nr_ptes, ...
	colUID
	colTGID
	colTotalVM
	colRSS
	colRSSAnon
	colRSSFile
	colRSSShmem
	colPgtables
	colSwapents
	colAdj
	columns
)

func columnOf(name string) column {
	switch name {
	case "uid":
		return colUID
	case "tgid":
		return colTGID
	case "total_vm":
		return colTotalVM
	case "rss":
		return colRSS
	case "rss_anon":
		return colRSSAnon
	case "rss_file":
		return colRSSFile
	case "rss_shmem":
		return colRSSShmem
	case "pgtables_bytes":
		return colPgtables
	case "swapents":
		return colSwapents
	case "oom_score_adj":
		return colAdj
	}
	return colOther
}

// row is one line of the task table.
type row struct {
	pid  int
	vals [columns]int64
	name string
}

// table is the kernel's task table, read by its header line: columns came and
// went (nr_ptes, nr_pmds, rss_anon).
type table struct {
	cols []column
	has  [columns]bool
	rows []row
	// lost is true when rows were dropped: then a pid may be missing.
	lost bool
}

func (t *table) reset() {
	clear(t.rows)
	*t = table{cols: t.cols[:0], rows: t.rows[:0]}
}

// header reads "[  pid  ]   uid  tgid total_vm      rss ... name".
func (t *table) header(b []byte) {
	_, b, ok := bytes.Cut(b, []byte{']'})
	if !ok {
		return
	}
	t.cols, t.has = t.cols[:0], [columns]bool{}
	for f := range bytes.FieldsSeq(b) {
		if len(t.cols) == 16 {
			t.cols = t.cols[:0]
			return
		}
		c := columnOf(string(f))
		t.cols = append(t.cols, c)
		t.has[c] = true
	}
	if n := len(t.cols); n > 0 {
		t.cols = t.cols[:n-1] // the name is no number
	}
}

// add reads "[    101]     0   101     7437 ... 0 java". One space stands
// before the name; more of them are the name's own.
func (t *table) add(b []byte, d *Dropped) {
	if len(t.cols) == 0 || len(b) == 0 || b[0] != '[' {
		return
	}
	p, b, ok := pid(bytes.TrimLeft(b[1:], " "))
	if !ok || len(b) == 0 || b[0] != ']' {
		return
	}
	b = b[1:]
	r := row{pid: p}
	for _, c := range t.cols {
		var n int64
		if n, b, ok = number(bytes.TrimLeft(b, " ")); !ok {
			return
		}
		r.vals[c] = n
	}
	if len(b) == 0 || b[0] != ' ' || len(b) > maxComm+1 {
		return
	}
	if len(t.rows) >= maxTasks {
		t.lost = true
		d.Tasks++
		return
	}
	r.name = string(b[1:])
	t.rows = append(t.rows, r)
}

// find gives the row of a process or of the thread that stands for it.
func (t *table) find(p int) *row {
	for i := range t.rows {
		if t.rows[i].pid == p || t.has[colTGID] && t.rows[i].vals[colTGID] == int64(p) {
			return &t.rows[i]
		}
	}
	return nil
}

// lacks tells whether a process is missing in a table that is whole.
func (t *table) lacks(p int) bool { return len(t.rows) > 0 && !t.lost && t.find(p) == nil }

// complete fills in what the row of a killed process says of it.
func (t *table) complete(k *Kill, r *row) {
	if k.UID == nil && t.has[colUID] {
		uid := r.vals[colUID]
		k.UID = &uid
	}
	if n := k.OOMScoreAdj; n != nil && t.has[colAdj] && cutFrom(int64(*n), r.vals[colAdj]) {
		k.OOMScoreAdj = nil
	}
	if adj := r.vals[colAdj]; k.OOMScoreAdj == nil && t.has[colAdj] && adj >= -1000 && adj <= 1000 {
		n := int(adj)
		k.OOMScoreAdj = &n
	}
	// Some 5.4 kernels print bytes and call them kB; the table has bytes.
	if b := r.vals[colPgtables]; k.PgtablesBytes != nil && t.has[colPgtables] && b > 0 && *k.PgtablesBytes == b<<10 {
		k.PgtablesBytes = &b
	}
}

// cutFrom tells whether n is m without its last digits: it stood where a line
// was cut.
func cutFrom(n, m int64) bool {
	for m/10 != 0 {
		if m /= 10; m == n {
			return true
		}
	}
	return false
}

// tasks gives the table as the API shows it.
func (t *table) tasks() []death.Task {
	if len(t.rows) == 0 {
		return nil
	}
	out := make([]death.Task, len(t.rows))
	vals := make([][columns]int64, len(t.rows))
	adjs := make([]int, len(t.rows))
	for i := range t.rows {
		r := &t.rows[i]
		v := &vals[i]
		*v = r.vals
		opt := func(c column) *int64 {
			if !t.has[c] {
				return nil
			}
			return &v[c]
		}
		out[i] = death.Task{
			PID: r.pid, UID: v[colUID], TGID: int(v[colTGID]),
			TotalVMPages: v[colTotalVM], RSSPages: v[colRSS],
			RSSAnonPages: opt(colRSSAnon), RSSFilePages: opt(colRSSFile), RSSShmemPages: opt(colRSSShmem),
			PgtablesBytes: opt(colPgtables), SwapentsPages: opt(colSwapents),
			Name: r.name,
		}
		if t.has[colAdj] {
			adjs[i] = int(v[colAdj])
			out[i].OOMScoreAdj = &adjs[i]
		}
	}
	return out
}
