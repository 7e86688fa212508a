// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"os"
	"slices"
	"strings"
	"testing"
)

const docs = "../docs/benchmarks.md"

// TestDocs_HaveEachRow: docs/benchmarks.md is of this table.
func TestDocs_HaveEachRow(t *testing.T) {
	b, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	rows, _, _ := strings.Cut(string(b), "\n## What is missed") // then come profiles
	for line := range strings.Lines(rows) {
		if cell, ok := strings.CutPrefix(line, "| `"); ok {
			id, _, _ := strings.Cut(cell, "`")
			got = append(got, id)
		}
	}
	for _, r := range Rows() {
		want = append(want, r.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s has the rows %q, want %q: run \"make bench\"", docs, got, want)
	}
}

// TestNotes_AreOfSomething: what notes.md says has a place.
func TestNotes_AreOfSomething(t *testing.T) {
	places := []string{"costs", "removed"}
	for _, r := range Rows() {
		places = append(places, r.ID, r.Section)
	}
	for name := range Notes() {
		if !slices.Contains(places, name) {
			t.Errorf("notes.md: %q is no row", name)
		}
	}
}

func TestRow_Met(t *testing.T) {
	most := Row{Goal: []float64{1, 6}}
	least := Row{Goal: []float64{10}, AtLeast: true}
	for _, tc := range []struct {
		row    Row
		values []float64
		want   bool
	}{
		{most, []float64{1, 6}, true},
		{most, []float64{.5, 6.1}, false},
		{most, []float64{.5}, false},
		{least, []float64{10}, true},
		{least, []float64{9.9}, false},
		{Row{}, nil, true},
	} {
		if got := tc.row.met(tc.values); got != tc.want {
			t.Errorf("%v met by %v: %v", tc.row.Goal, tc.values, got)
		}
	}
}

func TestReport_Markdown(t *testing.T) {
	r := Report{Results: map[string]Result{"start.answer": {Values: []float64{12.34, 400}}, "size.binary": {Values: []float64{20.52}}}}
	text := r.Markdown()
	for _, want := range []string{
		"| median 12.3 ms, worst 400 ms | at most median 300 ms, worst 300 ms | **no** |",
		"| 20.5 MiB | – | – |",
		"- `start.answer`: ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if slices.Contains(r.Missing(), "size.binary") || !slices.Contains(r.Missing(), "storm.rate") {
		t.Errorf("missing = %q", r.Missing())
	}
}
